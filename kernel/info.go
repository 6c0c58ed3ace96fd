package kernel

import (
	"time"

	"github.com/sluicerpc/sluice/status"
)

// BlockedOn is what a stream or a connection waits for. The zero value is nothing.
type BlockedOn string

// What can be waited for.
const (
	// BlockedOnNothing: nothing waits.
	BlockedOnNothing BlockedOn = ""
	// BlockedOnStreamCredit: a sender waits, or messages that were accepted do, until the
	// peer's application reads this stream.
	BlockedOnStreamCredit BlockedOn = "stream credit"
	// BlockedOnConnCredit: a sender waits, or accepted messages do, until the peer's
	// applications read any stream of the connection.
	BlockedOnConnCredit BlockedOn = "connection credit"
	// BlockedOnQueue: a sender waits, because Limits.OutQueue bytes of the connection's
	// streams are accepted and not written. What those wait for is the connection's
	// BlockedOn.
	BlockedOnQueue BlockedOn = "queue"
	// BlockedOnSocket: accepted messages wait, because the socket is full, or because the
	// peer's kernel has not read what was written (Limits.InFlight).
	BlockedOnSocket BlockedOn = "socket"
	// BlockedOnReader: messages that have arrived wait for this side's application. A
	// connection: it is not read until they are taken, on protocols without credit.
	BlockedOnReader BlockedOn = "reader"
)

// A StreamInfo is a stream at one moment: see Stream.Snapshot. Numbers of messages and bytes
// are from the stream's start, except for those of Mailbox and Queued. A request and a reply
// that travel with the open and the acceptance are not in them. Compressed messages count as
// they travel.
type StreamInfo struct {
	ID     uint64 // the number on the wire; 0: it has none yet
	Method string
	Opener bool // this side has opened it
	// State is "opening" before the acceptance; "open"; "half-closed (local)" when this
	// side sends no more; "half-closed (remote)" when the peer sends no more, or this side
	// takes no more; "closing" when both halves have ended and the peer does not know yet,
	// or has not said so; "closed".
	State string
	// Code is why the stream has failed, or what this side has ended or refused it with.
	// status.OK is neither.
	Code status.Code

	Age          time.Duration // since the open, until the end
	Latency      time.Duration // from the open to the acceptance; 0: not accepted
	Idle         time.Duration // since a message, or a piece of one, has arrived, or since the open; 0: closed
	DeadlineLeft time.Duration // 0: there is no deadline, or closed; it can be negative

	MessagesSent     uint64 // written
	BytesSent        uint64
	MessagesReceived uint64 // arrived
	BytesReceived    uint64
	MailboxMessages  int // arrived and not taken; those in In's buffer are taken
	MailboxBytes     int
	QueuedMessages   int // accepted by Send, TrySend, a Slot or Out, and not written
	QueuedBytes      int

	// Bytes of credit from the stream's start: a message takes its length and the
	// protocol's overhead. What is granted and not used can still be sent. Where the
	// receiver grants no credit (frame.Caps.Pacing) SendGranted is this side's own window,
	// and RecvGranted is 0.
	SendGranted int64
	SendUsed    int64 // by messages that were accepted
	RecvGranted int64
	RecvUsed    int64

	// BlockedOn is what the stream waits for. While a sender waits it is what for; else
	// what accepted messages wait for; else BlockedOnReader, if messages wait here. A
	// stream that was asked for Out or Writable counts as a sender.
	BlockedOn BlockedOn
	// BlockedFor is for how long. For the reader it is since something was taken last, or
	// since the first Snapshot after that.
	BlockedFor time.Duration
}

// A ConnInfo is a connection at one moment: see Conn.Snapshot. Numbers of messages and bytes
// are from the connection's start.
type ConnInfo struct {
	ID       uint64 // Conn.ID
	Peer     string // address
	Protocol string
	Client   bool // this side has dialled it
	TLS      bool
	Loop     int // index in Server.Loops; -1: it has a goroutine that reads
	// State is "open", "draining" when one side takes no more streams, or "closed".
	State string
	Code  status.Code // why it has ended; status.OK: in order, or not yet

	Age  time.Duration // until its end
	Idle time.Duration // since bytes arrived
	RTT  time.Duration // the shortest round trip of a ping or handshake; 0: not known

	Streams          int // open
	MessagesSent     uint64
	BytesSent        uint64 // all that was written, framing included, TLS excluded
	MessagesReceived uint64
	BytesReceived    uint64

	// Bytes of credit from the connection's start, all 0 where the protocol grants a
	// connection none. At rest, what is granted exceeds what is used by the window, or by
	// less where the peer has made its window smaller.
	SendGranted int64
	SendUsed    int64 // by what was written
	SendWindow  int64
	RecvGranted int64
	RecvUsed    int64
	RecvWindow  int64

	BlockedOn  BlockedOn // what output waits for, or the reader
	BlockedFor time.Duration

	InFlight     int // bytes written that the peer has not read; 0 where it does not say
	Queued       int // bytes of credit accepted and not written
	Unread       int // bytes of credit that have arrived and were not taken
	Assembled    int // bytes reserved for messages in fragments
	ExtraWindows int // bytes of windows beyond the initial ones
	OpenBytes    int // bytes of opens, answers and ends that streams keep
	Memory       int // bytes that count against Limits.Memory, OpenBytes among them
	Own          int // of Memory, what the connection, its streams, handlers and messages take beside what they carry
	Handlers     int // that run, those of ended streams included, or wait to
	Traces       int // calls of Trace under way
}
