// Package capwire is a protocol for tests that is made of its capabilities: a
// frame.Caps says what it carries, and what it does not carry is not on its wire.
// With it the kernel's tests run over any set of capabilities, HTTP/2's among them,
// before there is a protocol that has it.
package capwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Protocol is one set of capabilities. It is a pointer's, so that two are told apart.
type Protocol struct {
	C frame.Caps
	// Relative has credit travel as increments, not as totals.
	Relative bool
	// First, if not nil, changes what servers say about themselves at first. Their streams
	// and connections grant what they do: it can only be less.
	First func(*frame.Settings)
	// Changes are changes of that, each of which a server announces behind its next output.
	Changes chan func(*frame.Settings)
	// PingEach has a ping follow each grant of credit, as an estimator of the path does.
	PingEach bool
	// Pings counts the pings that were written, but those.
	Pings atomic.Int64
}

// HTTP2 are the capabilities that HTTP/2 with gRPC on it has: credit that is granted for
// a prefix of 5 bytes and the bytes of each message, by increments, a window that is the
// same for every stream, no reports, nothing inline, one stream a request, pings while
// there are streams, no word of what an application was handed, and a writer that can be
// stopped when its reader's own half has ended.
func HTTP2() *Protocol {
	return &Protocol{Relative: true, Changes: make(chan func(*frame.Settings), 16), C: frame.Caps{
		Name: "as-http2", HalfClose: true, Status: true, StopAtEnd: true, Early: true, Ping: true, Limits: true,
		FixedWindow: true, ConnWindow: 65_535, Overhead: 5, LeastPiece: 1,
		MaxFragment: 16 << 10, MaxStream: 1<<31 - 1, MaxGroup: 1, MaxMetadata: 16 << 10,
		Compression: pool.CompressionsOf(pool.Gzip),
	}}
}

// magic is what a client sends first.
const magic = "CAPWIRE!"

// Name implements frame.Protocol.
func (p *Protocol) Name() string { return p.C.Name }

// Caps implements frame.Protocol.
func (p *Protocol) Caps() frame.Caps { return p.C }

// Detect implements frame.Protocol.
func (p *Protocol) Detect(first []byte) frame.Verdict {
	n := min(len(first), len(magic))
	switch {
	case string(first[:n]) != magic[:n]:
		return frame.No
	case n < len(magic):
		return frame.More
	}
	return frame.Yes
}

// Handshake exchanges settings, the client's first.
func (p *Protocol) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	if g.Client {
		if err := send(rw, []byte(magic), &g.Own); err != nil {
			return nil, err
		}
		if err := receive(rw, &g.Peer); err != nil {
			return nil, err
		}
		return newSession(p, g), nil
	}
	if _, err := io.ReadFull(rw, make([]byte, len(magic)-min(len(magic), len(g.First)))); err != nil {
		return nil, err
	}
	rest := g.First[min(len(magic), len(g.First)):]
	if err := receive(io.MultiReader(bytes.NewReader(rest), rw), &g.Peer); err != nil {
		return nil, err
	}
	if g.Authenticate != nil {
		if err := g.Authenticate(ctx, &g.Peer); err != nil {
			return nil, err
		}
	}
	s := newSession(p, g)
	if p.First != nil {
		p.First(&s.own)
	}
	if err := send(rw, nil, &s.own); err != nil {
		return nil, err
	}
	return s, nil
}

func send(w io.Writer, before []byte, s *frame.Settings) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s); err != nil {
		return err
	}
	out := binary.BigEndian.AppendUint32(before, uint32(b.Len()))
	_, err := w.Write(append(out, b.Bytes()...))
	return err
}

var errSettings = errors.New("capwire: settings that are too long")

func receive(r io.Reader, s *frame.Settings) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > 64<<10 {
		return errSettings
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return err
	}
	if err := gob.NewDecoder(bytes.NewReader(p)).Decode(s); err != nil {
		return fmt.Errorf("capwire: settings: %w", err)
	}
	return nil
}
