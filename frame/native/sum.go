package native

import "hash/crc32"

// castagnoli is the polynomial of a record's CRC32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// lengthTable is CRC-8/ROHC's: x^8+x^2+x+1, the lowest bit first.
var lengthTable = func() (t [256]byte) {
	for i := range t {
		c := byte(i)
		for range 8 {
			c = c>>1 ^ 0xe0&-(c&1)
		}
		t[i] = c
	}
	return t
}()

// lengthCheck is the CRC-8 of a record's length. A record's CRC32C can be verified
// only when all of the record has come: a length that was changed on the way would
// have the reader wait for bytes that never come.
func lengthCheck(n int) byte {
	c := lengthTable[^byte(n)]
	c = lengthTable[c^byte(n>>8)]
	return lengthTable[c^byte(n>>16)]
}
