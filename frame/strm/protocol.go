package strm

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Protocol is brpc's protocol, for a server's or client's list of them. The zero
// value works.
type Protocol struct {
	// MaxBody is the longest packet that the other side takes, in bytes: its
	// max_body_size. Zero is 64 MiB, brpc's default; at least 4 KiB, so that every
	// error fits. The longest message is 64 bytes shorter.
	MaxBody int

	// Settle is for how long little is written to a stream behind the answer that
	// established it: brpc's programs can lose what comes sooner. A client holds its first
	// message back, and a server the stream's end, unless the peer writes first. Zero is 5
	// ms; negative is not at all.
	Settle time.Duration

	// MaxUnconsumed is how many bytes the streams of a connection may have unread at the
	// peer together, and not yet written, before each may have no more than MinBuf: brpc's
	// socket_max_streams_unconsumed_bytes and min_buf_size. Zero is 32 MiB and 16 KiB, so that
	// what 1,000 streams have unread stays within what a connection of ours holds. Streams
	// whose SendLimit is Unlimited have no part in it.
	MaxUnconsumed, MinBuf int

	// MaxCalls is how many calls of one connection a server takes, those that wait among them:
	// as many as Limits.MaxStreams are served at once, and those beyond MaxCalls are refused.
	// brpc's clients send what their programs call, and are told of no limit. 0 is 32 times
	// Limits.MaxStreams.
	MaxCalls int
}

// callsEach is how many calls there may be for each that is served at once.
const callsEach = 32

// defaultSettle was enough for 15 of 15 streams of brpc's own server on one machine, where
// without it 11 of 15 were.
const defaultSettle = 5 * time.Millisecond

func (p Protocol) settle() time.Duration {
	if p.Settle == 0 {
		return defaultSettle
	}
	return max(p.Settle, 0)
}

// Name returns "brpc".
func (Protocol) Name() string { return Name }

// Caps tells what the protocol can carry.
func (p Protocol) Caps() frame.Caps {
	return frame.Caps{
		ConnUnreported: cmp.Or(p.MaxUnconsumed, maxUnconsumed), LeastUnreported: cmp.Or(p.MinBuf, minBuf),
		Name: Name, Pacing: frame.Reported, Outlives: true,
		Overhead: overhead, LeastPiece: overhead + 1,
		SendWindow: sendWindow, MaxOverrun: headerLen + maxRPCMeta + maxFrameMeta,
		MaxFragment: maxFragment, MaxStream: maxStream,
		MaxInline: maxInline, LongInline: true, MaxGroup: maxGroup, MaxMetadata: maxMetadata,
		CallCompression: pool.CompressionsOf(pool.Gzip),
	}
}

// Detect looks for the magic of a client's first packet, which is a request.
func (Protocol) Detect(first []byte) frame.Verdict {
	const magic = "PRPC"
	n := min(len(first), len(magic))
	switch {
	case string(first[:n]) != magic[:n]:
		return frame.No
	case n < len(magic):
		return frame.More
	}
	return frame.Yes
}

// initialWindow is what may be unread at the peer unless a stream's options say
// otherwise: brpc's default of max_buf_size.
const initialWindow = 2 << 20

// Handshake fills in the limits of a peer of this protocol. Nothing is exchanged, but a
// server with Authenticate reads the first request: its authentication_data is the
// client's token.
func (p Protocol) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	body := p.MaxBody
	if body == 0 {
		body = maxBody
	}
	if body < leastBody || body > math.MaxInt32 {
		return nil, fmt.Errorf("brpc: MaxBody is %d, must be %d to %d", body, leastBody, math.MaxInt32)
	}
	if p.MaxUnconsumed < 0 || p.MinBuf < 0 {
		return nil, fmt.Errorf("brpc: MaxUnconsumed is %d and MinBuf %d, must be 0 or more", p.MaxUnconsumed, p.MinBuf)
	}
	g.Peer = frame.Settings{
		MaxFragment:   maxFragment,
		MaxMessage:    uint64(body - bodySpare),
		MaxStreams:    1 << 30,
		MaxMetadata:   maxMetadata,
		InitialCredit: initialWindow,
		ConnCredit:    1 << 62,

		RefusalMetadata: true,
	}
	if p.MaxCalls < 0 {
		return nil, fmt.Errorf("brpc: MaxCalls is %d, must be 0 or more", p.MaxCalls)
	}
	g.Early = g.First
	if !g.Client && g.Authenticate != nil {
		if err := authenticate(ctx, rw, g); err != nil {
			return nil, err
		}
	}
	s := newSession(g.Client, int(g.Own.MaxMessage), body)
	s.in.rpc.most = int(g.Own.MaxMetadata)
	s.proto = p
	s.settle = p.settle()
	s.maxCalls = int(min(cmp.Or(uint64(p.MaxCalls), callsEach*g.Own.MaxStreams), math.MaxInt32))
	if g.Client {
		s.out.token = g.Own.Token
	}
	return s, nil
}

// errFirst: a client that must authenticate has to begin with a request.
var errFirst = errors.New("brpc: the first packet is not a request")

// authenticate reads the head of the first request, and answers it if Authenticate
// refuses the client. It refuses stream frames before that request, which brpc's servers
// take.
func authenticate(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) error {
	buf := append(make([]byte, 0, 1<<10), g.First...)
	var err error
	if buf, err = readTo(rw, buf, headerLen); err != nil {
		return err
	}
	body, meta := int64(binary.BigEndian.Uint32(buf[4:])), int64(binary.BigEndian.Uint32(buf[8:]))
	if binary.BigEndian.Uint32(buf) != magicRPC || meta > body || meta > maxRPCMeta {
		return errFirst
	}
	if buf, err = readTo(rw, buf, headerLen+int(meta)); err != nil {
		return err
	}
	var m rpcMeta
	if err := m.parse(buf[headerLen : headerLen+meta]); err != nil {
		return fmt.Errorf("%w: %w", errFirst, err)
	}
	if !m.isRequest {
		return errFirst
	}
	g.Early = buf
	g.Peer.Token = append([]byte(nil), m.auth...)
	if err := g.Authenticate(ctx, &g.Peer); err != nil {
		_, _ = rw.Write(appendFailure(nil, &m, eAuth, "Fail to authenticate"))
		return fmt.Errorf("brpc: %w", err)
	}
	return nil
}

// readTo reads until buf holds n bytes, or more.
func readTo(r io.Reader, buf []byte, n int) ([]byte, error) {
	for len(buf) < n {
		if cap(buf) == len(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		k, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if k == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
	}
	return buf, nil
}

// appendFailure appends the answer to a request that was refused before its streams
// were looked at. It is plain, not wrapped, and holds nothing but the error, as with
// brpc's servers.
func appendFailure(b []byte, m *rpcMeta, errno int, text string) []byte {
	at := len(b)
	b = appendHeader(b, magicRPC, 0, 0)
	b = appendResponse(b, errno, text)
	b = appendVarint(b, fCorrelation, uint64(m.correlation))
	return patchSizes(b, at, 0)
}
