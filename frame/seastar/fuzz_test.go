package seastar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// seeds adds what one side of the conversations has said behind its hello.
func seeds(f *testing.F, client, stream bool) {
	for _, set := range []map[string]*Protocol{regular, answered} {
		for name := range set {
			for conn := range 2 {
				lines := conversation(f, name)
				hello, _, err := readHello(said(lines, conn, true), &wire{})
				if err != nil {
					continue
				}
				answer := said(lines, conn, false)
				agreed, rest, err := readHello(answer, &wire{})
				if err != nil || has(hello, featStreamParent) != stream {
					continue
				}
				if client {
					_, rest, _ = readHello(said(lines, conn, true), &wire{})
				}
				chosen, _ := find(agreed, featCompress)
				f.Add(uint8(1+slices.Index(algorithms, chosen)), has(agreed, featTimeout), rest)
			}
		}
	}
}

// chosen is the features that a fuzzer's numbers choose.
func chosen(algorithm uint8, timed bool) (rs []record) {
	if n := int(algorithm) % 3; n > 0 {
		rs = append(rs, record{featCompress, algorithms[n-1]})
	}
	if timed {
		rs = append(rs, record{featTimeout, ""}, record{featHandlerDuration, ""})
	}
	return rs
}

// check feeds p to sessions whole and in parts. Nothing may panic, errors have a
// code, events follow each other as they must, and the parts make no difference.
func check(t *testing.T, p []byte, make func() frame.Session) {
	base := pool.Outstanding()
	var first []string
	var firstErr error
	for i, n := range []int{len(p), 1, 7, 1000} {
		var cuts []int
		for at := n; n > 0 && at < len(p); at += n {
			cuts = append(cuts, at)
		}
		s := make()
		lines, err := events(s, p, cuts...)
		if err != nil && codeOf(err) == 0 {
			t.Fatalf("an error without a code: %v", err)
		}
		if i == 0 {
			first, firstErr = lines, err
		}
		equal(t, fmt.Sprintf("in parts of %d", n), lines, first)
		if fmt.Sprint(err) != fmt.Sprint(firstErr) {
			t.Errorf("in parts of %d it ends with %v, not %v", n, err, firstErr)
		}
		s.Closed()
	}
	// A compressed frame that is cut short leaves what it was put into to the garbage
	// collector.
	if n := pool.Outstanding() - base; n > 4 {
		t.Errorf("%d messages are held by four sessions", n)
	}
}

func FuzzServer(f *testing.F) {
	seeds(f, true, false)
	f.Fuzz(func(t *testing.T, algorithm uint8, timed bool, p []byte) {
		check(t, p, func() frame.Session {
			return mustServe(t, &Protocol{Compress: algorithms}, chosen(algorithm, timed)...)
		})
	})
}

func FuzzClient(f *testing.F) {
	seeds(f, false, false)
	f.Fuzz(func(t *testing.T, algorithm uint8, timed bool, p []byte) {
		check(t, p, func() frame.Session {
			s := mustDial(t, &Protocol{Compress: algorithms}, 0, chosen(algorithm, timed)...)
			for id := uint64(1); id < 20; id += 2 {
				control(s, &frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: "#1", Grants: make([]frame.Grant, 1)})
				send(s, id, nil)
			}
			return s
		})
	})
}

func FuzzServerStream(f *testing.F) {
	seeds(f, true, true)
	f.Fuzz(func(t *testing.T, algorithm uint8, timed bool, p []byte) {
		check(t, p, func() frame.Session {
			return serverStream(t, &Protocol{Compress: algorithms}, chosen(algorithm, timed)...)
		})
	})
}

func FuzzClientStream(f *testing.F) {
	seeds(f, false, true)
	f.Fuzz(func(t *testing.T, algorithm uint8, timed bool, p []byte) {
		check(t, p, func() frame.Session {
			return clientStream(t, &Protocol{Compress: algorithms}, chosen(algorithm, timed)...)
		})
	})
}

// FuzzHello: whatever a client says first, it is answered with a hello or with
// nothing, and how much of it was there to detect the protocol makes no
// difference.
func FuzzHello(f *testing.F) {
	for _, set := range []map[string]*Protocol{regular, answered} {
		for name := range set {
			f.Add(said(conversation(f, name), 0, true), uint8(12))
		}
	}
	f.Add(hello(record{featStreamParent, idData(1 << idShift)}, record{featCompress, "LZ4,X"}, record{9, "abc"}), uint8(20))
	f.Fuzz(func(t *testing.T, in []byte, first uint8) {
		run := func(first, each int) ([]byte, []byte, error) {
			p := &Protocol{Compress: algorithms}
			p.parents.add(1 << idShift)
			p.parents.countFrom(1)
			s, out, g, err := serve(p, in, first, each)
			if (s == nil) != (err != nil) || (len(out) == 0) != (err != nil) {
				t.Fatalf("session %v, %d bytes, %v", s, len(out), err)
			}
			if err != nil && codeOf(err) == 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			return out, g.Early, err
		}
		out, rest, err := run(0, 0)
		if err == nil {
			rs, more, err := readHello(out, &wire{})
			if err != nil || len(more) > 0 || !has(rs, featConnectionID) {
				t.Fatalf("%x: %v", out, err)
			}
			equalBytes(t, "the answer, encoded again", hello(rs...), out)
		}
		out2, rest2, err2 := run(int(first)%(frame.SniffLen+1), 1)
		if !bytes.Equal(out, out2) || fmt.Sprint(err) != fmt.Sprint(err2) || err == nil && !bytes.Equal(rest, rest2) {
			t.Errorf("%x, %x, %v\n%x, %x, %v", out, rest, err, out2, rest2, err2)
		}
	})
}

// FuzzCompression: what a sender compresses, a reader takes for what it was.
func FuzzCompression(f *testing.F) {
	f.Add([]byte("hello"), uint32(100))
	f.Add(binary.LittleEndian.AppendUint64(nil, 1), uint32(70_000))
	f.Fuzz(func(t *testing.T, p []byte, n uint32) {
		if len(p) > 0 {
			p = bytes.Repeat(p, int(n%100_000)/len(p)+1)
		}
		if len(p) > testLimit {
			p = p[:testLimit]
		}
		for _, algorithm := range algorithms {
			lines, err := events(packedStream(t, algorithm), send(packedStream(t, algorithm), 1, p), int(n)%4)
			if err != nil || len(lines) != 1 || lines[0] != fmt.Sprintf("1 data %x", p) {
				t.Fatalf("%s: %d bytes: %d events, %v", algorithm, len(p), len(lines), err)
			}
		}
	})
}
