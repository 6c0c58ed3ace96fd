package kernel

import (
	"context"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
)

// Snapshot returns the stream's figures. It may be called at any time, also when the stream
// is over, and takes less than a microsecond.
func (s *Stream) Snapshot() StreamInfo {
	now := time.Now()
	c := &s.c
	a := c.actorStream.Info(now)
	age, latency := c.Port.Times(now)
	i := StreamInfo{
		ID: c.ID(), Method: c.method, Opener: c.opener, State: a.State, Code: a.Code,
		Age: age, Latency: latency, Idle: age,
		MessagesSent: a.Sent.Messages, BytesSent: a.Sent.Bytes,
		MessagesReceived: a.Received.Messages, BytesReceived: a.Received.Bytes,
		MailboxMessages: int(a.Mailbox.Messages), MailboxBytes: int(a.Mailbox.Bytes),
		QueuedMessages: int(a.Queued.Messages), QueuedBytes: int(a.Queued.Bytes),
		SendGranted: a.SendGranted, SendUsed: a.SendUsed, RecvGranted: a.RecvGranted, RecvUsed: a.RecvUsed,
	}
	if a.Idle >= 0 {
		i.Idle = min(a.Idle, age)
	}
	if x := c.x.Load(); x != nil && !x.deadline.IsZero() && !x.deadlineOff.Load() {
		i.DeadlineLeft = x.deadline.Sub(now)
	}
	if a.State == "closed" {
		i.Idle, i.DeadlineLeft = 0, 0
	}
	i.BlockedOn, i.BlockedFor = c.blocked(&a, now)
	return i
}

// blocked returns what the stream waits for, and for how long.
func (c *core) blocked(a *actor.Info, now time.Time) (BlockedOn, time.Duration) {
	switch a.Wait {
	case actor.WaitCredit:
		return BlockedOnStreamCredit, a.WaitFor
	case actor.WaitQueue:
		return BlockedOnQueue, a.WaitFor
	case actor.WaitReader:
		return BlockedOnReader, a.WaitFor
	case actor.WaitRoom:
		if b := c.conn.c.RoomBlock(); b != conn.BlockNone {
			return blockedOn[b], a.WaitFor
		}
	case actor.WaitTurn:
		b, d := c.Port.TurnBlock(now)
		return blockedOn[b], d
	}
	return BlockedOnNothing, 0
}

// blockedOn is the names of what blocks a connection.
var blockedOn = [...]BlockedOn{
	conn.BlockNone:   BlockedOnNothing,
	conn.BlockCredit: BlockedOnConnCredit,
	conn.BlockQueue:  BlockedOnQueue,
	conn.BlockSocket: BlockedOnSocket,
	conn.BlockReader: BlockedOnReader,
}

// Snapshot returns the connection's figures. It may be called at any time, also when the
// connection has ended.
func (c *Conn) Snapshot() ConnInfo {
	i := c.c.Info(time.Now())
	held, beside, own := c.memoryAbove()
	return ConnInfo{
		ID: c.id, Peer: c.peerText(), Protocol: c.protocol, Client: c.client, TLS: c.peer.TLS != nil,
		Loop: i.Loop, State: i.State, Code: i.Code, Age: i.Age, Idle: i.Idle, RTT: i.RTT, Streams: i.Streams,
		MessagesSent: i.MessagesSent, BytesSent: i.BytesSent,
		MessagesReceived: i.MessagesReceived, BytesReceived: i.BytesReceived,
		SendGranted: i.SendGranted, SendUsed: i.SendUsed, SendWindow: i.SendWindow,
		RecvGranted: i.RecvGranted, RecvUsed: i.RecvUsed, RecvWindow: i.RecvWindow,
		BlockedOn: blockedOn[i.Block], BlockedFor: i.BlockFor,
		InFlight: i.InFlight, Queued: i.Queued, Unread: i.Unread, Assembled: i.Assembled,
		ExtraWindows: i.ExtraWindows, OpenBytes: i.OpenBytes, Memory: i.Memory + held + beside + own, Own: i.Own + beside + own, Handlers: int(c.running.count.Load()),
		Traces: i.Traces,
	}
}

// peerText is the peer's address. It is written once, for who looks again and again.
func (c *Conn) peerText() string {
	if c.peer.Addr == nil { // a net.Conn of the program's may have none
		return ""
	}
	if text := c.addr.Load(); text != nil {
		return *text
	}
	text := c.peer.Addr.String()
	c.addr.Store(&text)
	return text
}

// Loops returns the event loops that have had a connection, by number: all servers and clients
// of the process share them. It is empty where none runs: all connections have TLS or are no
// sockets of Linux, or nothing is served. Measuring their Lag takes up to 100 ms, and nothing
// is measured otherwise. A loop lags while it decodes what one connection has sent, and when
// the machine has no CPU for it.
func (s *Server) Loops() []conn.LoopInfo { return conn.LoopInfos() }

// Trace calls f with the header of each frame that is read or written, until ctx ends or the
// connection has ended: who has sent what, and when. It sees no payload, and no metadata. f
// runs in the caller's goroutine. If it is slower than the connection, frames are left out;
// FrameInfo.Lost says how many. While somebody traces, the connection is a little slower;
// nothing is spent otherwise. Any number of calls may run at once.
func (c *Conn) Trace(ctx context.Context, f func(conn.FrameInfo)) { c.c.Trace(ctx, c.done, f) }

// EachStream calls yield with every open stream, in no order, until yield returns false:
//
//	for s := range c.EachStream {
//		fmt.Println(s.ID(), s.Snapshot().BlockedOn)
//	}
//
// It holds no lock meanwhile. Streams that begin or end meanwhile may be among them or not.
func (c *Conn) EachStream(yield func(*Stream) bool) {
	c.c.Each(func(s conn.Stream) bool { return yield(s.(*core).stream()) })
}

// Stream returns the open stream with a number, which is Stream.ID, or nil: to look at it, or
// to reset it by Abort.
func (c *Conn) Stream(id uint64) *Stream {
	if s, ok := c.c.Stream(id).(*core); ok {
		return s.stream()
	}
	return nil
}
