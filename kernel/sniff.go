package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

var errSilent = errors.New("closed before the first byte")

// spoken returns which of ps a client under TLS may speak. name is what client and server
// have agreed on by ALPN, if anything. A name that is none of theirs is the program's own:
// it excludes no protocol. A client without a name is told by its first bytes, like one
// without TLS, unless every protocol has a name.
func spoken(ps []frame.Protocol, name string) []frame.Protocol {
	var named, nameless []frame.Protocol
	for _, p := range ps {
		switch alpn := p.Caps().ALPN; alpn {
		case "":
			nameless = append(nameless, p)
		case name:
			named = append(named, p)
		}
	}
	switch {
	case len(named) > 0:
		return named
	case name != "" || len(nameless) > 0:
		return ps
	}
	return nil
}

// isEnd reports whether err says that the peer has gone, or has said nothing in time: no
// fault of a net.Conn of the program's.
func isEnd(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrDeadlineExceeded)
}

// sniff reads until the first bytes tell which of the candidates the peer speaks.
func (s *Server) sniff(nc net.Conn, candidates []frame.Protocol) (frame.Protocol, []byte, error) {
	buf := make([]byte, 0, frame.SniffLen)
	for {
		n, err := nc.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		more := false
		for _, p := range candidates {
			switch p.Detect(buf) {
			case frame.Yes:
				return p, buf, nil
			case frame.More:
				more = true
			}
		}
		switch {
		case len(buf) == 0 && isEnd(err):
			return nil, nil, errSilent
		case len(buf) == 0 && err != nil:
			return nil, nil, err
		case !more || len(buf) == cap(buf):
			s.unknownProtocol.Add(1)
			turnAway(nc)
			return nil, nil, fmt.Errorf("no known protocol starts with %q", buf)
		case err != nil:
			return nil, nil, err
		}
	}
}

const (
	// turnAwayTime is how long a client that speaks no known protocol has to read that its
	// connection has ended,
	turnAwayTime = 500 * time.Millisecond
	// and turnAwayBytes is how much of what it has sent is dropped meanwhile.
	turnAwayBytes = 64 << 10
)

// turnAway ends the output of nc, and drops what the peer still sends, until that ends too.
// Closed with something unread, a connection ends in a reset: the client of another protocol
// would see a fault of the network, and not that nobody here speaks its protocol.
func turnAway(nc net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if nc.SetReadDeadline(time.Now().Add(turnAwayTime)) == nil {
		_, _ = io.CopyN(io.Discard, nc, turnAwayBytes)
	}
}
