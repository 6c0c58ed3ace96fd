package native

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// controls are frames of every kind but Data, with their bytes on the wire.
// docs/wire.md shows the same bytes.
var controls = []struct {
	name  string
	frame frame.Frame
	hex   string
}{
	{"hello", frame.Frame{Kind: frame.Hello, Settings: frame.Settings{
		MinVersion: 1, MaxVersion: 1, Checksum: true, MaxFragment: 64 << 10, MaxMessage: 4 << 20, MaxStreams: 1000,
		MaxMetadata: 16 << 10, InitialCredit: 8388, ConnCredit: 16 << 20, Token: []byte("key"),
		Compression: pool.CompressionsOf(pool.Gzip, pool.Zstd), RefusalMetadata: true,
	}}, `30 00 00 0d 00 00 00 00
		01 02 01 01  02 01 01  03 03 80 80 04  04 04 80 80 80 02  05 02 e8 07
		06 03 80 80 01  07 02 c4 41  08 04 80 80 80 08  09 03 6b 65 79
		0a 01 06  0b 01 01`},
	{"open", frame.Frame{
		Kind: frame.Open, Stream: 1, Method: "chat.Room/Join", Deadline: 1500 * time.Millisecond,
		Metadata: metadata.MD{{Key: "lang", Value: "en"}}, Payload: []byte("hi"),
		Grants: []frame.Grant{{Credit: 8388, Limit: 4096}},
	}, `23 00 00 01 01 00 00 00
		01  88 83 01  80 20  e0 c6 5b  0e 63 68 61 74 2e 52 6f 6f 6d 2f 4a 6f 69 6e
		01  04 6c 61 6e 67  02 65 6e  68 69`},
	{"open of two streams, the second write-only, request to follow", frame.Frame{
		Kind: frame.Open, Stream: 3, Method: "m", FollowsData: true,
		Grants: []frame.Grant{{Credit: 100}, {NoReceive: true}},
	}, `0a 00 00 21 03 00 00 00  02  c8 01 00  01 00  00  01 6d  00`},
	{"accept", frame.Frame{
		Kind: frame.Accept, Stream: 1, Payload: []byte("welcome"),
		Metadata: metadata.MD{{Key: "room", Value: "7"}, {Key: "room", Value: "8"}},
		Grants:   []frame.Grant{{Credit: 262144}},
	}, `1b 00 00 02 01 00 00 00  01  80 80 20  00  02  04 72 6f 6f 6d 01 37  04 72 6f 6f 6d 01 38
		77 65 6c 63 6f 6d 65`},
	{"accept, reply to follow", frame.Frame{
		Kind: frame.Accept, Stream: 1, FollowsData: true, Grants: []frame.Grant{{Credit: 64, Limit: 1}},
	}, `05 00 00 22 01 00 00 00  01  80 01  01  00`},
	{"reject", frame.Frame{
		Kind: frame.Reject, Stream: 1, Code: status.PermissionDenied, Reason: "no",
	}, `04 00 00 03 01 00 00 00  07  02 6e 6f`},
	{"reject, not processed", frame.Frame{
		Kind: frame.Reject, Stream: 1, Code: status.Refused, NotProcessed: true,
	}, `02 00 00 23 01 00 00 00  4a  00`},
	{"reject with metadata", frame.Frame{
		Kind: frame.Reject, Stream: 1, Code: status.PermissionDenied, Reason: "no",
		Metadata: metadata.MD{{Key: "a", Value: "b"}},
	}, `09 00 00 03 01 00 00 00  07  02 6e 6f  01  01 61 01 62`},
	{"eos", frame.Frame{Kind: frame.EOS, Stream: 1}, `00 00 00 05 01 00 00 00`},
	{"eos with status and trailer", frame.Frame{
		Kind: frame.EOS, Stream: 1, Code: status.NotFound, Reason: "gone",
		Metadata: metadata.MD{{Key: "a", Value: ""}},
	}, `0a 00 00 05 01 00 00 00  05  04 67 6f 6e 65  01  01 61 00`},
	{"ended", frame.Frame{Kind: frame.Ended, Stream: 1, Value: 300}, `02 00 00 06 01 00 00 00  ac 02`},
	{"reset", frame.Frame{
		Kind: frame.Reset, Stream: 1, Code: status.Cancelled, Reason: "bye",
	}, `05 00 00 07 01 00 00 00  01  03 62 79 65`},
	{"stop", frame.Frame{Kind: frame.Stop, Stream: 1, Code: status.OK}, `01 00 00 08 01 00 00 00  00`},
	{"credit of a stream", frame.Frame{Kind: frame.Credit, Stream: 1, Value: 0x0102030405060708},
		`08 00 00 09 01 00 00 00  08 07 06 05 04 03 02 01`},
	{"credit of the connection", frame.Frame{Kind: frame.Credit, Value: 32 << 20},
		`08 00 00 09 00 00 00 00  00 00 00 02 00 00 00 00`},
	{"read", frame.Frame{Kind: frame.Read, Value: 65536}, `08 00 00 0a 00 00 00 00  00 00 01 00 00 00 00 00`},
	{"ping", frame.Frame{Kind: frame.Ping, Value: 1}, `08 00 00 0b 00 00 00 00  01 00 00 00 00 00 00 00`},
	{"pong", frame.Frame{Kind: frame.Pong, Value: 1}, `08 00 00 2b 00 00 00 00  01 00 00 00 00 00 00 00`},
	{"goaway, first step", frame.Frame{Kind: frame.GoAway, Value: maxStreamID},
		`07 00 00 0c 00 00 00 00  ff ff ff ff 07  00  00`},
	{"goaway with a code", frame.Frame{Kind: frame.GoAway, Value: 5, Code: status.EnhanceYourCalm, Reason: "x"},
		`04 00 00 0c 00 00 00 00  05  45  01 78`},
}

func TestEveryControlFrameHasItsBytesAndComesBack(t *testing.T) {
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			for _, checked := range []bool{false, true} {
				w, r := pair(checked)
				got := written(w, func(o *frame.Out) { w.Control(o, &c.frame) })
				want := unhex(t, c.hex)
				if plain := got[len(got)-len(want):]; !reflect.DeepEqual(plain, want) {
					t.Errorf("checked=%t: on the wire\n%x, want\n%x", checked, plain, want)
				}
				if n := len(got) - len(want); n != 0 && (!checked || n != recordLen) {
					t.Errorf("checked=%t: %d bytes more than the frame", checked, n)
				}
				es, err := read(r, got, whole)
				if err != nil || len(es) != 1 {
					t.Fatalf("checked=%t: read back %v, %v", checked, es, err)
				}
				if back := es[0].String(); back != describe(&c.frame) {
					t.Errorf("checked=%t: came back as\n%s, was\n%s", checked, back, describe(&c.frame))
				}
			}
		})
	}
}

func TestEveryKindIsInTheTable(t *testing.T) {
	have := map[frame.Kind]bool{frame.Data: true, frame.None: true, frame.Skip: true}
	for _, c := range controls {
		have[c.frame.Kind] = true
	}
	for k := frame.None; k <= frame.Skip; k++ {
		if !have[k] {
			t.Errorf("%s has no row", kindNames[k])
		}
	}
}

func TestDataFramesHaveTheirBytes(t *testing.T) {
	m := pool.MessageOf([]byte("abcdef"))
	for _, c := range []struct {
		name string
		put  func(w *Session, o *frame.Out)
		hex  string
	}{
		{"whole", func(w *Session, o *frame.Out) { w.Message(o, 1, m.Share()) }, `06 00 00 04 01 00 00 00  61 62 63 64 65 66`},
		{"empty", func(w *Session, o *frame.Out) { w.Message(o, 2, pool.MessageOf(nil)) }, `00 00 00 04 02 00 00 00`},
		{"first fragment", func(w *Session, o *frame.Out) { fragment(w, o, 1, m, 0, 2) },
			`06 00 00 24 01 00 00 00  06 00 00 00  61 62`},
		{"middle fragment", func(w *Session, o *frame.Out) { fragment(w, o, 1, m, 2, 3) }, `03 00 00 64 01 00 00 00  63 64 65`},
		{"last fragment", func(w *Session, o *frame.Out) { fragment(w, o, 1, m.Share(), 5, 1) }, `01 00 00 44 01 00 00 00  66`},
		{"compressed", func(w *Session, o *frame.Out) { w.Message(o, 1, letters()) }, `0d 00 00 84 01 00 00 00
			02  c8 01  28 b5 2f fd 20 c8 43 06 00 61`},
		{"compressed, first fragment", func(w *Session, o *frame.Out) { fragment(w, o, 1, letters(), 0, 5) }, `09 00 00 a4 01 00 00 00
			0d 00 00 00  02 c8 01 28 b5`},
		{"compressed, last fragment", func(w *Session, o *frame.Out) { fragment(w, o, 1, letters(), 5, 8) }, `08 00 00 44 01 00 00 00
			2f fd 20 c8 43 06 00 61`},
	} {
		w, _ := pair(false)
		if got, want := written(w, func(o *frame.Out) { c.put(w, o) }), unhex(t, c.hex); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %x, want %x", c.name, got, want)
		}
	}
}

func TestARecordCarriesCRC32COfItsLengthAndFrames(t *testing.T) {
	w, _ := pair(true)
	got := written(w, func(o *frame.Out) { w.Message(o, 1, pool.MessageOf([]byte("123456789"))) })
	want := unhex(t, `11 00 00 8e  00 00 00 00  09 00 00 04 01 00 00 00  31 32 33 34 35 36 37 38 39`)
	if !reflect.DeepEqual(got[:4], want[:4]) || !reflect.DeepEqual(got[8:], want[8:]) {
		t.Fatalf("%x", got)
	}
	if crc := crcBitwise(append(append([]byte(nil), got[:4]...), got[8:]...)); crc != le32(got[4:]) {
		t.Errorf("the record says %08x, the polynomial %08x", le32(got[4:]), crc)
	}
	if crc := crcBitwise([]byte("123456789")); crc != 0xe3069283 {
		t.Errorf("the check value of CRC32C is e3069283, not %08x", crc)
	}
}

func TestALengthCarriesItsCRC8(t *testing.T) {
	for _, n := range []int{0, 1, 8, 17, 255, 256, 32 << 10, 64 << 10, 1<<24 - 1} {
		if got, want := lengthCheck(n), crc8Bitwise([]byte{byte(n), byte(n >> 8), byte(n >> 16)}); got != want {
			t.Errorf("the check of length %d is %02x, by its definition %02x", n, got, want)
		}
	}
	if crc := crc8Bitwise([]byte("123456789")); crc != 0xd0 {
		t.Errorf("the check value of CRC-8/ROHC is d0, not %02x", crc)
	}
}

// Up to three bits of a record's length and its check that change are noticed.
func TestThreeFlippedBitsOfALengthAreNoticed(t *testing.T) {
	for _, n := range []uint32{8, 100, 32 << 10, 1 << 20} {
		word := n | uint32(lengthCheck(int(n)))<<24
		for i := range 32 {
			for j := range 32 {
				for k := range 32 {
					w := word ^ (1<<i | 1<<j | 1<<k)
					if byte(w>>24) == lengthCheck(int(w&0xffffff)) {
						t.Fatalf("length %d: bits %d, %d and %d change unnoticed", n, i, j, k)
					}
				}
			}
		}
	}
}

// crc8Bitwise is CRC-8/ROHC by its definition.
func crc8Bitwise(p []byte) byte {
	crc := byte(0xff)
	for _, b := range p {
		crc ^= b
		for range 8 {
			crc = crc>>1 ^ 0xe0&-(crc&1)
		}
	}
	return crc
}

func le32(p []byte) uint32 {
	return uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
}

// crcBitwise is CRC32C by its definition.
func crcBitwise(p []byte) uint32 {
	crc := ^uint32(0)
	for _, b := range p {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78&-(crc&1)
		}
	}
	return ^crc
}

// A control frame of up to 64 KiB must not end up in a record with others: a
// record of several frames ends at 32 KiB, however it is cut on the way.
func TestALargeControlFrameHasARecordOfItsOwn(t *testing.T) {
	for _, size := range []int{4 << 10, 20 << 10, 33 << 10, 60 << 10} {
		w, _ := pair(true)
		big := frame.Frame{
			Kind: frame.Open, Stream: 1, Method: "m", Grants: []frame.Grant{{}},
			Payload: filled(16 << 10).Bytes(), Metadata: metadata.MD{{Key: "k", Value: strings.Repeat("v", size)}},
		}
		if size > 40<<10 {
			big.Payload = nil
		}
		b := written(w, func(o *frame.Out) {
			for range 15 {
				w.Message(o, 3, filled(1000))
			}
			w.Control(o, &big)
			w.Message(o, 3, filled(10))
		})
		for name, cut := range map[string]func() int{"whole": whole, "byte by byte": bytewise, "64 KiB": func() int { return 64 << 10 }} {
			_, r := pair(true)
			es, err := read(r, b, cut)
			if err != nil || len(es) != 17 {
				t.Errorf("%d bytes, %s: %d events, %v", size, name, len(es), err)
			}
		}
	}
}

func TestAWriterCutsALongReason(t *testing.T) {
	for _, k := range []frame.Kind{frame.EOS, frame.Reset, frame.Reject, frame.GoAway} {
		w, r := pair(false)
		f := frame.Frame{Kind: k, Stream: 1, Code: status.Unknown, Reason: strings.Repeat("x", 1<<20)}
		b := written(w, func(o *frame.Out) { w.Control(o, &f) })
		if es, err := read(r, b, whole); err != nil || len(es) != 1 || len(b) > maxReason+32 {
			t.Errorf("%s: %d bytes, %v", kindNames[k], len(b), err)
		}
	}
}

func TestAReaderCutsALongReason(t *testing.T) {
	for _, k := range []frame.Kind{frame.EOS, frame.Reset, frame.Reject, frame.GoAway} {
		p := binary.AppendUvarint(nil, 5)
		if k == frame.GoAway {
			p = append([]byte{0}, p...)
		}
		p = appendString(p, strings.Repeat("x", 60_000))
		if k == frame.EOS {
			p = append(p, 0) // no metadata
		}
		f := frame.Frame{Kind: k}
		if err := control(p, 0, &f, maxControl); err != nil || f.Code != 5 || len(f.Reason) != maxReason {
			t.Errorf("%s: code %d, a reason of %d bytes, %v", kindNames[k], f.Code, len(f.Reason), err)
		}
	}
}

// Metadata that is too much is counted, not kept.
func TestMetadataBeyondTheLimitIsLeftOut(t *testing.T) {
	const n = 30_000
	empty := appendMetadata(nil, make(metadata.MD, n))
	begin := appendGrants(nil, make([]frame.Grant, 1))
	for k, p := range map[frame.Kind][]byte{
		frame.Open:   append(append(begin[:len(begin):len(begin)], 0, 1, 'm'), empty...),
		frame.Accept: append(begin[:len(begin):len(begin)], empty...),
		frame.EOS:    append([]byte{0, 0}, empty...),
	} {
		f := frame.Frame{Kind: k, Grants: make([]frame.Grant, 0, 1), Metadata: make(metadata.MD, 1)}
		allocs := testing.AllocsPerRun(10, func() {
			if err := control(p, 0, &f, 16<<10); err != nil {
				t.Fatal(err)
			}
		})
		if f.Metadata != nil || f.Omitted != 32*n || allocs > 2 {
			t.Errorf("%s: %d fields, %d bytes left out, %v allocations", kindNames[k], len(f.Metadata), f.Omitted, allocs)
		}
	}
	f := frame.Frame{Kind: frame.EOS, Omitted: 1}
	if err := control(append([]byte{0, 0}, appendMetadata(nil, metadata.MD{{Key: "k", Value: "v"}})...), 0, &f, 34); err != nil || f.Omitted != 0 || len(f.Metadata) != 1 {
		t.Errorf("metadata as large as it may be: %+v, %v", f, err)
	}
}

// bad is input that ends the connection, with its code.
var bad = []struct {
	name string
	hex  string
	code status.Code
}{
	{"unknown type below 16", `00 00 00 0e 00 00 00 00`, status.Protocol},
	{"type 0", `00 00 00 00 00 00 00 00`, status.Protocol},
	{"data beyond the fragment size", `01 00 01 04 01 00 00 00`, status.FrameSize},
	{"data of 16 MiB", `ff ff ff 04 01 00 00 00`, status.FrameSize},
	{"first fragment without room for its total", `03 00 00 24 01 00 00 00 00 00 00 00`, status.FrameSize},
	{"control frame of 64 KiB and a byte", `01 00 01 01 01 00 00 00`, status.FrameSize},
	{"frame of an unknown type beyond 64 KiB", `01 00 01 10 00 00 00 00`, status.FrameSize},
	{"ping of 7 bytes", `07 00 00 0b 00 00 00 00 00 00 00 00 00 00 00`, status.FrameSize},
	{"credit of 9 bytes", `09 00 00 09 00 00 00 00 00 00 00 00 00 00 00 00 00`, status.FrameSize},
	{"read without a payload", `00 00 00 0a 00 00 00 00`, status.FrameSize},
	{"open without a payload", `00 00 00 01 01 00 00 00`, status.FrameSize},
	{"accept without a payload", `00 00 00 02 01 00 00 00`, status.FrameSize},
	{"reject without a payload", `00 00 00 03 01 00 00 00`, status.FrameSize},
	{"ended without a payload", `00 00 00 06 01 00 00 00`, status.FrameSize},
	{"reset without a payload", `00 00 00 07 01 00 00 00`, status.FrameSize},
	{"stop without a payload", `00 00 00 08 01 00 00 00`, status.FrameSize},
	{"goaway without a payload", `00 00 00 0c 00 00 00 00`, status.FrameSize},
	{"stream number beyond 2^31-1", `01 00 00 08 00 00 00 80 00`, status.Protocol},
	{"varint of 11 bytes", `0b 00 00 06 01 00 00 00 ff ff ff ff ff ff ff ff ff ff 01`, status.Protocol},
	{"varint beyond 64 bits", `0a 00 00 06 01 00 00 00 ff ff ff ff ff ff ff ff ff 02`, status.Protocol},
	{"varint that is not the shortest", `02 00 00 06 01 00 00 00 81 00`, status.Protocol},
	{"varint cut short", `01 00 00 06 01 00 00 00 81`, status.Protocol},
	{"bytes after the end of a payload", `02 00 00 06 01 00 00 00 01 00`, status.Protocol},
	{"reason longer than its frame", `03 00 00 07 01 00 00 00 01 7f 00`, status.Protocol},
	{"length of a reason that overflows", `0b 00 00 07 01 00 00 00 01 ff ff ff ff ff ff ff ff ff 01`, status.Protocol},
	{"open of no stream", `04 00 00 01 01 00 00 00 00 00 00 00`, status.Protocol},
	{"open of 257 streams", `02 00 00 01 01 00 00 00 81 02`, status.Protocol},
	{"open with credit beyond 2^31", `07 00 00 01 01 00 00 00 01 82 80 80 80 10 00`, status.FlowControl},
	{"more fields of metadata than bytes", `07 00 00 01 01 00 00 00 01 00 00 00 00 7f 00`, status.Protocol},
	{"setting with a value that is no varint", `03 00 00 0d 00 00 00 00 03 01 80`, status.Protocol},
	{"setting without a value", `02 00 00 0d 00 00 00 00 03 00`, status.Protocol},
	{"setting with bytes after its value", `04 00 00 0d 00 00 00 00 08 02 01 00`, status.Protocol},
	{"setting that is longer than its frame", `03 00 00 0d 00 00 00 00 08 7f 01`, status.Protocol},
	{"versions with one end", `03 00 00 0d 00 00 00 00 01 01 01`, status.Protocol},
	{"versions with three ends", `05 00 00 0d 00 00 00 00 01 03 01 01 01`, status.Protocol},
	{"checksum of an unknown kind", `03 00 00 0d 00 00 00 00 02 01 02`, status.Protocol},
}

func TestBadFramesEndTheConnection(t *testing.T) {
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			for name, cut := range map[string]func() int{"whole": whole, "byte by byte": bytewise} {
				_, r := pair(false)
				es, err := read(r, unhex(t, c.hex), cut)
				if codeOf(err) != c.code || len(es) > 0 {
					t.Errorf("%s: %v and %v, want %v", name, es, err, c.code)
				}
			}
		})
	}
}

func TestBadRecordsEndTheConnection(t *testing.T) {
	good := func() []byte {
		w, _ := pair(true)
		return written(w, func(o *frame.Out) { w.Message(o, 1, filled(20)) })
	}
	for _, c := range []struct {
		name string
		wire []byte
		code status.Code
	}{
		{"wrong check of its length", append([]byte{20, 0, 0, lengthCheck(20) ^ 1}, good()[4:]...), status.Checksum},
		{"wrong length", append([]byte{20, 0, 1, lengthCheck(20)}, good()[4:]...), status.Checksum},
		{"all zeros", make([]byte, 8), status.Checksum},
		{"shorter than a frame", []byte{7, 0, 0, lengthCheck(7), 0, 0, 0, 0}, status.FrameSize},
		{"longer than any frame", []byte{0, 0, 2, lengthCheck(2 << 16), 0, 0, 0, 0}, status.FrameSize},
		{"wrong sum", append(append(append([]byte(nil), good()[:4]...), 0, 0, 0, 0), good()[8:]...), status.Checksum},
		{"frame beyond its record", sealed(unhex(t, `05 00 00 04 01 00 00 00 61`)), status.Protocol},
		{"half a header at the end", sealed(unhex(t, `01 00 00 04 01 00 00 00 61 00 00 00`)), status.Protocol},
		{"several frames in more than 32 KiB", sealed(append(make([]byte, 0), manyFrames(5)...)), status.Protocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, cut := range map[string]func() int{"whole": whole, "byte by byte": bytewise} {
				_, r := pair(true)
				if _, err := read(r, c.wire, cut); codeOf(err) != c.code {
					t.Errorf("%s: %v, want %v", name, err, c.code)
				}
			}
		})
	}
}

// manyFrames is n plain data frames of 8,000 bytes.
func manyFrames(n int) []byte {
	w, _ := pair(false)
	return written(w, func(o *frame.Out) {
		for range n {
			w.Message(o, 1, filled(8000))
		}
	})
}

func TestUnknownTypesFrom16AreSkippedAHundredInARow(t *testing.T) {
	one := unhex(t, `03 00 00 10 00 00 00 00 61 62 63`)
	ping := unhex(t, `08 00 00 0b 00 00 00 00 01 00 00 00 00 00 00 00`)
	var b []byte
	for range maxSkipped {
		b = append(b, one...)
	}
	b = append(b, ping...)
	for range maxSkipped {
		b = append(b, one...)
	}
	_, r := pair(false)
	es, err := read(r, b, whole)
	if err != nil || len(es) != 2*maxSkipped+1 {
		t.Fatalf("%d events, %v", len(es), err)
	}
	if _, err = read(r, one, whole); codeOf(err) != status.EnhanceYourCalm {
		t.Errorf("one more gave %v", err)
	}
}

func TestUnknownFlagsAreIgnored(t *testing.T) {
	_, r := pair(false)
	es, err := read(r, unhex(t, `01 00 00 e8 01 00 00 00 00`), whole) // stop with all flags
	if err != nil || es[0].String() != "stop stream=1 code=OK" {
		t.Errorf("%v, %v", es, err)
	}
}

func TestTinyFragmentsEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		most int
	}{{"empty", 0, maxEmpty}, {"of a byte", 1, maxTinyFrames}, {"of 31 bytes", tinyFragment - 1, maxTinyFrames}} {
		_, r := pair(false)
		w, _ := pair(false)
		m := filled(4 << 20)
		b := written(w, func(o *frame.Out) { fragment(w, o, 1, m, 0, 100) })
		if _, err := read(r, b, whole); err != nil {
			t.Fatal(err)
		}
		off := 100
		next := func() error {
			b := written(w, func(o *frame.Out) { fragment(w, o, 1, m, off, c.size) })
			off += c.size
			_, err := read(r, b, whole)
			return err
		}
		for i := range c.most {
			if err := next(); err != nil {
				t.Fatalf("%s: fragment %d: %v", c.name, i, err)
			}
		}
		if err := next(); codeOf(err) != status.EnhanceYourCalm {
			t.Errorf("%s: one more gave %v", c.name, err)
		}
	}
}

func TestBegunTellsWhereAnIncompleteFrameStarts(t *testing.T) {
	for _, checked := range []bool{false, true} {
		w, r := pair(checked)
		var b []byte
		var starts []int64
		for _, n := range []int{10, 5000, 60_000, 0} {
			starts = append(starts, int64(len(b)))
			b = append(b, written(w, func(o *frame.Out) { w.Message(o, 1, filled(n)) })...)
		}
		at := 0
		for i := range b {
			if _, err := read(r, b[i:i+1], whole); err != nil {
				t.Fatal(err)
			}
			for at+1 < len(starts) && int64(i+1) >= starts[at+1] {
				at++
			}
			begun, ok := r.Begun()
			complete := int64(i+1) == starts[at] || i+1 == len(b)
			if ok == complete || ok && begun != starts[at] {
				t.Fatalf("checked=%t, after byte %d: begun at %d, %t; the frame starts at %d", checked, i, begun, ok, starts[at])
			}
		}
	}
}
