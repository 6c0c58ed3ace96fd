package admin

import (
	"math"
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// schema is the version of what ?format=json says. Fields may be added to it; where one goes
// away or changes its meaning, the number goes up.
const schema = 1

// envelope is around the JSON of every page.
type envelope struct {
	Schema int       `json:"schema"`
	Page   string    `json:"page"`
	At     time.Time `json:"at"`
	Data   any       `json:"data"`
}

// streamJSON is a stream in JSON. Times are seconds, rates are per second, and -1 where they
// are not known yet.
type streamJSON struct {
	ID               string     `json:"id"` // of the connection and of the stream: what /streams/{id} takes
	Conn             uint64     `json:"conn"`
	Stream           uint64     `json:"stream"` // the number on the wire
	Endpoint         string     `json:"endpoint"`
	Peer             string     `json:"peer"`
	Method           string     `json:"method"`
	Opener           bool       `json:"opener"`
	State            string     `json:"state"`
	Code             string     `json:"code"`
	BlockedOn        string     `json:"blocked_on"`
	BlockedBy        string     `json:"blocked_by"`
	BlockedFor       float64    `json:"blocked_for_s"`
	BlockedSince     *time.Time `json:"blocked_since,omitempty"`
	Age              float64    `json:"age_s"`
	Latency          float64    `json:"latency_s"`
	Idle             float64    `json:"idle_s"`
	DeadlineLeft     float64    `json:"deadline_left_s"`
	MessagesSent     uint64     `json:"messages_sent"`
	BytesSent        uint64     `json:"bytes_sent"`
	MessagesReceived uint64     `json:"messages_received"`
	BytesReceived    uint64     `json:"bytes_received"`
	MessagesRate     float64    `json:"messages_per_s"`
	BytesRate        float64    `json:"bytes_per_s"`
	MailboxMessages  int        `json:"mailbox_messages"`
	MailboxBytes     int        `json:"mailbox_bytes"`
	QueuedMessages   int        `json:"queued_messages"`
	QueuedBytes      int        `json:"queued_bytes"`
	SendGranted      int64      `json:"send_granted_bytes"`
	SendUsed         int64      `json:"send_used_bytes"`
	RecvGranted      int64      `json:"recv_granted_bytes"`
	RecvUsed         int64      `json:"recv_used_bytes"`
}

// connJSON is a connection in JSON.
type connJSON struct {
	ID               uint64     `json:"id"`
	Endpoint         string     `json:"endpoint"`
	Peer             string     `json:"peer"`
	Protocol         string     `json:"protocol"`
	Client           bool       `json:"client"`
	TLS              bool       `json:"tls"`
	Loop             int        `json:"loop"`
	State            string     `json:"state"`
	Code             string     `json:"code"`
	BlockedOn        string     `json:"blocked_on"`
	BlockedBy        string     `json:"blocked_by"`
	BlockedFor       float64    `json:"blocked_for_s"`
	BlockedSince     *time.Time `json:"blocked_since,omitempty"`
	Age              float64    `json:"age_s"`
	Idle             float64    `json:"idle_s"`
	RTT              float64    `json:"rtt_s"`
	Streams          int        `json:"streams"`
	Handlers         int        `json:"handlers"`
	MessagesSent     uint64     `json:"messages_sent"`
	BytesSent        uint64     `json:"bytes_sent"`
	MessagesReceived uint64     `json:"messages_received"`
	BytesReceived    uint64     `json:"bytes_received"`
	MessagesRate     float64    `json:"messages_per_s"`
	BytesRate        float64    `json:"bytes_per_s"`
	SendGranted      int64      `json:"send_granted_bytes"`
	SendUsed         int64      `json:"send_used_bytes"`
	SendWindow       int64      `json:"send_window_bytes"`
	RecvGranted      int64      `json:"recv_granted_bytes"`
	RecvUsed         int64      `json:"recv_used_bytes"`
	RecvWindow       int64      `json:"recv_window_bytes"`
	InFlight         int        `json:"in_flight_bytes"`
	Queued           int        `json:"queued_bytes"`
	Unread           int        `json:"unread_bytes"`
	Assembled        int        `json:"assembled_bytes"`
	ExtraWindows     int        `json:"extra_windows_bytes"`
	OpenBytes        int        `json:"open_bytes"`
	Memory           int        `json:"memory_bytes"`
	Own              int        `json:"own_bytes"`
	Traces           int        `json:"traces"`
}

// streamID is what the pages call a stream: the connection's number and its own. One that
// has none yet can't be named.
func streamID(conn, stream uint64) string {
	if stream == 0 {
		return strconv.FormatUint(conn, 10) + "-new"
	}
	return strconv.FormatUint(conn, 10) + "-" + strconv.FormatUint(stream, 10)
}

// seconds is a time in JSON.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e9) / 1e9 }

// since is when what has lasted for d began; nil if nothing has.
func since(now time.Time, on kernel.BlockedOn, d time.Duration) *time.Time {
	if on == kernel.BlockedOnNothing {
		return nil
	}
	at := now.Add(-d).Round(time.Millisecond)
	return &at
}

func codeName(c status.Code) string { return c.String() }

func (r *streamRow) json(now time.Time) streamJSON {
	i := &r.info
	return streamJSON{
		ID: streamID(r.conn.info.ID, i.ID), Conn: r.conn.info.ID, Stream: i.ID, Endpoint: r.conn.from.name,
		Peer: r.conn.info.Peer, Method: i.Method, Opener: i.Opener, State: i.State, Code: codeName(i.Code),
		BlockedOn: string(i.BlockedOn), BlockedBy: r.by(), BlockedFor: seconds(i.BlockedFor), BlockedSince: since(now, i.BlockedOn, i.BlockedFor),
		Age: seconds(i.Age), Latency: seconds(i.Latency), Idle: seconds(i.Idle), DeadlineLeft: seconds(i.DeadlineLeft),
		MessagesSent: i.MessagesSent, BytesSent: i.BytesSent, MessagesReceived: i.MessagesReceived, BytesReceived: i.BytesReceived,
		MessagesRate: r.rates.messages, BytesRate: r.rates.bytes,
		MailboxMessages: i.MailboxMessages, MailboxBytes: i.MailboxBytes, QueuedMessages: i.QueuedMessages, QueuedBytes: i.QueuedBytes,
		SendGranted: i.SendGranted, SendUsed: i.SendUsed, RecvGranted: i.RecvGranted, RecvUsed: i.RecvUsed,
	}
}

func (r *connRow) json(now time.Time) connJSON {
	i := &r.info
	return connJSON{
		ID: i.ID, Endpoint: r.from.name, Peer: i.Peer, Protocol: i.Protocol, Client: i.Client, TLS: i.TLS, Loop: i.Loop,
		State: i.State, Code: codeName(i.Code), BlockedOn: string(i.BlockedOn), BlockedBy: r.by(), BlockedFor: seconds(i.BlockedFor),
		BlockedSince: since(now, i.BlockedOn, i.BlockedFor),
		Age:          seconds(i.Age), Idle: seconds(i.Idle), RTT: seconds(i.RTT), Streams: i.Streams, Handlers: i.Handlers,
		MessagesSent: i.MessagesSent, BytesSent: i.BytesSent, MessagesReceived: i.MessagesReceived, BytesReceived: i.BytesReceived,
		MessagesRate: r.rates.total().messages, BytesRate: r.rates.total().bytes,
		SendGranted: i.SendGranted, SendUsed: i.SendUsed, SendWindow: i.SendWindow,
		RecvGranted: i.RecvGranted, RecvUsed: i.RecvUsed, RecvWindow: i.RecvWindow,
		InFlight: i.InFlight, Queued: i.Queued, Unread: i.Unread, Assembled: i.Assembled, ExtraWindows: i.ExtraWindows,
		OpenBytes: i.OpenBytes, Memory: i.Memory, Own: i.Own, Traces: i.Traces,
	}
}
