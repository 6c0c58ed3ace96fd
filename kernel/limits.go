package kernel

import (
	"time"

	"github.com/sluicerpc/sluice/conn"
)

// Limits bound what a peer can make this side hold and do. A zero field has its default,
// which is a limit too; Unlimited means none. docs/operations.md says what they add up to.
type Limits struct {
	MaxConns        int           // connections of a server; default 65,536, at most 35 % of RLIMIT_NOFILE and what a quarter of Memory is enough for at 6 KiB each; a number of your own: at most 45 %
	MaxConnsPerAddr int           // connections of a server from one address, or one IPv6 network of 64 bits; default 1,024
	MaxHandshakes   int           // handshakes at once, beyond which connections wait, and then take the place of one that is silent; default 256
	Handshake       time.Duration // time for TLS and Hello; default 5 s
	Authenticate    time.Duration // time for Authenticate and for Authorize; default 5 s

	MaxStreams      int // streams that a peer may have open on a connection; default 1,000
	MaxTotalStreams int // streams that peers may have open on all connections of a server; default 100,000, or what half of Memory is enough for at 6 KiB each
	MaxMessage      int // bytes of a message that we receive; default 4 MiB, at most 1 GiB
	MaxMetadata     int // bytes of metadata, as metadata.MD.Size counts; default 16 KiB
	MaxKeys         int // fields of metadata; default 128
	MaxOffers       int // offers of a server that wait to be accepted; default 1,024

	StreamWindow   int // bytes unread that the window of a stream that is read grows to on any path; default 1 MiB
	ConnWindow     int // bytes unread on a connection, on any path; default 16 MiB
	MaxWindow      int // bytes unread that the window of a stream may grow to on a long path that carries so much, and half of what its connection's may; default 32 MiB, or StreamWindow if that is more
	SenderWindow   int // bytes unread on a stream whose sender chooses its window itself; on its connection, four times that; beyond either a stream is reset, preferably one that nobody reads; default 16 MiB, or twice MaxMessage if that is more
	AssemblyBudget int // bytes of messages in fragments on a connection, beyond the windows, and as many of requests and metadata; default 64 MiB, or MaxMessage if that is more
	Memory         int // bytes that the connections of a server take, their streams and handlers, and what those hold; default 70 % of GOMEMLIMIT if that is set, else Unlimited
	OutQueue       int // bytes accepted and not written on a connection; default 1 MiB
	InFlight       int // bytes written and not read by the peer, at first: it grows as the path needs; default 256 KiB, at least 128 KiB; four times that for a stream that alone sends

	KeepaliveInterval time.Duration // a silent peer is pinged after this; default 30 s, or what its protocol says; at least 100 ms
	KeepaliveTimeout  time.Duration // time to answer; default 20 s
	ReadStall         time.Duration // time for a frame to become complete; default 30 s
	WriteStall        time.Duration // time for a peer to read, 64 KiB at least; default 30 s
	IdleConn          time.Duration // a connection without streams is drained; default 10 min, or what its protocol says, servers only
	MaxConnAge        time.Duration // a connection as old as this, or up to a tenth younger or older, is drained; default Unlimited, servers only
	ConnAgeGrace      time.Duration // time for the streams of a connection that was drained for its age to end; default Unlimited
	Drain             time.Duration // time for a drain whose context has no deadline; default 30 s
}

// Unlimited means no limit, in options that are a number or a time.
const Unlimited = conn.Unlimited

// withDefaults returns l with every zero field set, KeepaliveInterval and IdleConn aside.
func (l Limits) withDefaults() Limits { return Limits(conn.WithDefaults(conn.Limits(l))) }
