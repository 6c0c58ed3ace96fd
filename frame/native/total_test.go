package native

import (
	"encoding/binary"
	"testing"

	"github.com/sluicerpc/sluice/frame"
)

// Every length on the wire is a length, never UnknownTotal.
func TestATotalIsNeverUnknown(t *testing.T) {
	s := New(DefaultMaxFragment)
	b := binary.LittleEndian.AppendUint64(nil, header(totalLen+1, tData|fMore, 1))
	b = append(binary.LittleEndian.AppendUint32(b, 0xffffffff), 'x')
	var f frame.Frame
	if _, err := s.Next(b, &f); err != nil || f.Kind != frame.Data || f.Total < 1<<30 {
		t.Fatalf("total %d, %v", f.Total, err)
	}
}
