package framed

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// sink is a byte stream that keeps what is written and counts the writes.
type sink struct {
	io.Reader
	bytes.Buffer
	writes int
}

func (s *sink) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func (s *sink) Write(p []byte) (int, error) {
	s.writes++
	return s.Buffer.Write(p)
}

func (s *sink) Close() error { return nil }

var sizes = []int{0, 1, 59, 60, 61, 500, 508, 509, 8188, 8189, 16383, 16384, 65531, 65532, 65536, 65537, 200_000, 3}

func fill(p []byte, i int) {
	for k := range p {
		p[k] = byte(i*31 + k)
	}
}

func written(t *testing.T, batch bool) *sink {
	t.Helper()
	out := &sink{}
	s := New(out, batch, Buffer, peer.Options{})
	for i, n := range sizes {
		b := s.Buf(n)
		fill(b, i)
		if err := s.Send(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSizesInPiecesOfEveryKind(t *testing.T) {
	for _, batch := range []bool{false, true} {
		stream := written(t, batch).Bytes()
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(stream),
			"bytes": iotest.OneByteReader(bytes.NewReader(stream)),
			"halfs": iotest.HalfReader(bytes.NewReader(stream)),
			"eof":   iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			s := New(&sink{Reader: r}, batch, Buffer, peer.Options{})
			for i, n := range sizes {
				want := make([]byte, n)
				fill(want, i)
				if got, err := s.Recv(); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: message %d of %d bytes: got %d bytes, %v", name, i, n, len(got), err)
				}
			}
			for range 2 {
				if _, err := s.Recv(); err != io.EOF {
					t.Errorf("%s: after the last: %v", name, err)
				}
			}
		}
	}
}

func TestCutShort(t *testing.T) {
	stream := written(t, true).Bytes()
	for _, n := range []int{0, 2, 4, 5, 70, len(stream) - 4, len(stream) - 1} {
		s := New(&sink{Reader: bytes.NewReader(stream[:n])}, true, Buffer, peer.Options{})
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestHalfCloseIsACleanEndOnlyBetweenMessages(t *testing.T) {
	whole := []byte{1, 0, 0, 0, 'x'}
	for n, want := range map[int]error{0: io.EOF, 2: io.ErrUnexpectedEOF, 4: io.ErrUnexpectedEOF, 5: io.EOF} {
		s := New(&sink{Reader: bytes.NewReader(whole[:n])}, true, Buffer, peer.Options{})
		s.HalfClose(func() error { return nil }, func() error { return nil })
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		if n == 2 && !errors.Is(err, io.ErrUnexpectedEOF) || n != 2 && !errors.Is(err, want) {
			t.Errorf("after %d bytes: %v, want %v", n, err, want)
		}
	}
}

func TestLimitOfSize(t *testing.T) {
	s := New(&sink{Reader: bytes.NewReader([]byte{0, 0, 0, 0x7f})}, true, Buffer, peer.Options{})
	if _, err := s.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("message of 2 GiB: %v", err)
	}
}

func TestBatching(t *testing.T) {
	for _, tc := range []struct {
		batch, duplex bool
		writes        int
	}{{true, false, 1}, {true, true, 0}, {false, false, 10}} {
		out := &sink{Reader: bytes.NewReader(nil)}
		s := New(out, tc.batch, Buffer, peer.Options{Duplex: tc.duplex})
		for range 10 {
			if err := s.Send(s.Buf(10)); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = s.Recv() // has to wait
		if out.writes != tc.writes {
			t.Errorf("batch %v, duplex %v: %d writes, want %d", tc.batch, tc.duplex, out.writes, tc.writes)
		}
	}
}
