package tally

import (
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/kernel"
)

// Keys of attributes. Those that begin with rpc, network and error are OpenTelemetry's conventions.
const (
	KeyEndpoint  = "sluice.endpoint" // the name that the program gives a server or client
	KeyRole      = "sluice.role"     // of this side for a stream: "client" if it has opened it, else "server"
	KeyBlockedOn = "sluice.blocked_on"
	KeyLoop      = "sluice.loop"
	KeyProtocol  = "rpc.system.name"
	KeyMethod    = "rpc.method"
	KeyCode      = "rpc.response.status_code"
	KeyError     = "error.type"
	KeyDirection = "network.io.direction"
)

// Directions of KeyDirection.
const (
	Transmit = "transmit"
	Receive  = "receive"
)

// A Metric is one figure that is read when somebody asks.
type Metric struct {
	Name    string // OpenTelemetry's way to write it
	Unit    string // UCUM
	Counter bool   // it counts since the start; else it is of now
	Help    string
	Keys    []string // of its attributes, KeyEndpoint aside
}

// What Metrics returns, by index.
const (
	conns = iota
	connsBegun
	connsEnded
	connsRefused
	handshakesFailed
	unknownProtocol
	streams
	handlers
	messages
	bytesCarried
	queued
	unread
	inFlight
	memory
	connsBlocked
	streamsBlocked
	connLongest
	streamLongest
	evictions
	panics
	dropped
	loopConns
	loopWakeups
	loopLag
)

// Metrics are all that Each gives, by index.
func Metrics() []Metric {
	protocol := []string{KeyProtocol}
	direction := []string{KeyProtocol, KeyDirection}
	blocked := []string{KeyBlockedOn}
	loop := []string{KeyLoop}
	return []Metric{
		conns:            {"sluice.connections", "{connection}", false, "Connections that are open.", protocol},
		connsBegun:       {"sluice.connections.begun", "{connection}", true, "Connections that have completed their handshake.", protocol},
		connsEnded:       {"sluice.connections.ended", "{connection}", true, "Connections that have ended, by why.", []string{KeyProtocol, KeyCode}},
		connsRefused:     {"sluice.connections.refused", "{connection}", true, "Connections that were closed at once because of a limit.", nil},
		handshakesFailed: {"sluice.handshakes.failed", "{handshake}", true, "Handshakes of clients that failed.", nil},
		unknownProtocol:  {"sluice.handshakes.unknown_protocol", "{handshake}", true, "Handshakes that failed because the client spoke no known protocol.", nil},
		streams:          {"sluice.streams", "{stream}", false, "Streams and calls that are open.", protocol},
		handlers:         {"sluice.handlers", "{handler}", false, "Handlers that run, or wait to.", protocol},
		messages:         {"sluice.messages", "{message}", true, "Messages that were written or have arrived.", direction},
		bytesCarried:     {"sluice.io", "By", true, "Bytes that were written or have arrived, framing included, TLS excluded.", direction},
		queued:           {"sluice.queued", "By", false, "Bytes of credit that were accepted from senders and not written.", protocol},
		unread:           {"sluice.unread", "By", false, "Bytes of credit that have arrived and were not taken by this program.", protocol},
		inFlight:         {"sluice.in_flight", "By", false, "Bytes that were written and not read by the peer.", protocol},
		memory:           {"sluice.memory", "By", false, "Bytes that count against Limits.Memory.", nil},
		connsBlocked:     {"sluice.connections.blocked", "{connection}", false, "Connections that have waited for a second or more, by what for.", blocked},
		streamsBlocked:   {"sluice.streams.blocked", "{stream}", false, "Streams that have waited for a second or more, by what for.", blocked},
		connLongest:      {"sluice.connection.blocked.longest", "s", false, "How long the connection has waited that has waited longest.", blocked},
		streamLongest:    {"sluice.stream.blocked.longest", "s", false, "How long the stream has waited that has waited longest.", blocked},
		evictions:        {"sluice.evictions", "{eviction}", true, "Streams and connections that were ended because of Limits.Memory or MaxTotalStreams.", nil},
		panics:           {"sluice.panics", "{panic}", true, "Handlers and other functions of the program's that panicked.", nil},
		dropped:          {"sluice.observer.dropped", "{call}", true, "Calls of the Observer that were not made: what they would have told is in no metric.", nil},
		loopConns:        {"sluice.loop.connections", "{connection}", false, "Connections that an event loop reads, of all servers and clients of the process.", loop},
		loopWakeups:      {"sluice.loop.wakeups", "{wakeup}", true, "Times that an event loop had something to do.", loop},
		loopLag:          {"sluice.loop.lag", "s", false, "How late an event loop is.", loop},
	}
}

// Histograms of what streams take. They are recorded when a stream has ended.
var (
	ServerDuration = Metric{"rpc.server.call.duration", "s", false, "How long calls and streams lasted that peers have opened.", []string{KeyProtocol, KeyMethod, KeyCode, KeyError}}
	ClientDuration = Metric{"rpc.client.call.duration", "s", false, "How long calls and streams lasted that this side has opened.", ServerDuration.Keys}
	Acceptance     = Metric{"sluice.stream.acceptance.duration", "s", false, "How long it took from a stream's open to its acceptance.", []string{KeyProtocol, KeyMethod, KeyRole}}
)

// Buckets are the histograms' default ones, in seconds: from calls on one machine to streams that
// last for a day.
func Buckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600, 3600, 86400}
}

// An Endpoint is a *kernel.Server or a *kernel.Client.
type Endpoint interface{ Stats() kernel.Stats }

// blockedFor is from when on something counts as blocked: messages wait a little all the time.
const blockedFor = time.Second

// Each calls yield with every figure: the index of its metric, and its attributes' values in the
// order of the metric's Keys. of is what is asked for its Stats and its loops, or nil. With eachStream
// every open stream is looked at, for those that are blocked.
func (t *Tally) Each(of Endpoint, eachStream bool, yield func(metric int, value float64, values ...string)) {
	r := t.Read(blockedFor, eachStream)
	for i := range r.Wires {
		r.Wires[i].each(yield)
	}
	for _, on := range reasons {
		b := r.Blocked[on]
		yield(connsBlocked, float64(b.Conns), string(on))
		yield(connLongest, b.LongestConn.Seconds(), string(on))
		if eachStream {
			yield(streamsBlocked, float64(b.Streams), string(on))
			yield(streamLongest, b.LongestStream.Seconds(), string(on))
		}
	}
	if of != nil {
		eachStat(of, yield)
	}
}

func (w *Wire) each(yield func(int, float64, ...string)) {
	p := w.Protocol
	yield(conns, float64(w.Conns), p)
	yield(connsBegun, float64(w.Begun), p)
	for code, n := range byName(w) {
		yield(connsEnded, float64(n), p, code)
	}
	yield(streams, float64(w.Streams), p)
	yield(handlers, float64(w.Handlers), p)
	yield(messages, float64(w.Sums.MessagesSent), p, Transmit)
	yield(messages, float64(w.Sums.MessagesReceived), p, Receive)
	yield(bytesCarried, float64(w.Sums.BytesSent), p, Transmit)
	yield(bytesCarried, float64(w.Sums.BytesReceived), p, Receive)
	yield(queued, float64(w.Queued), p)
	yield(unread, float64(w.Unread), p)
	yield(inFlight, float64(w.InFlight), p)
}

// byName counts ends by the names of their codes, of which several are Other.
func byName(w *Wire) map[string]uint64 {
	n := map[string]uint64{"OK": 0} // so that a rate is known from the first end on
	for code, of := range w.Ended {
		n[Code(code)] += of
	}
	return n
}

func eachStat(of Endpoint, yield func(int, float64, ...string)) {
	s := of.Stats()
	yield(panics, float64(s.Panics))
	yield(dropped, float64(s.ObserverDropped))
	srv, ok := of.(interface{ Loops() []conn.LoopInfo })
	if !ok { // a client, which counts no more
		return
	}
	yield(connsRefused, float64(s.Refused))
	yield(handshakesFailed, float64(s.Failed))
	yield(unknownProtocol, float64(s.UnknownProtocol))
	yield(memory, float64(s.Memory))
	yield(evictions, float64(s.Evicted))
	for i, l := range srv.Loops() {
		loop := strconv.Itoa(i)
		yield(loopConns, float64(l.Conns), loop)
		yield(loopWakeups, float64(l.Wakeups), loop)
		yield(loopLag, l.Lag.Seconds(), loop)
	}
}
