package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/proc"
	"github.com/sluicerpc/sluice/benchmarks/load/relay"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// prepare makes the relay, links and lanes, and checks the server's settings.
func (r *run) prepare(ctx context.Context) error {
	addr := r.target.Addr
	if r.cfg.needsRelay() {
		var err error
		if r.relay, err = relay.New(addr); err != nil {
			return err
		}
		addr = r.relay.Addr()
	}
	if r.target.Admin != "" {
		r.server = proc.NewSource(r.target.Admin)
		s, err := r.server.Fetch(ctx, false)
		if err != nil {
			return err
		}
		if name := r.target.Peer.Name(); s.Peer != "" && s.Peer != name {
			return fmt.Errorf("the server at %s serves %s, not %s", r.target.Addr, s.Peer, name)
		}
		if n := r.cfg.longest(); s.MaxMessage > 0 && n > s.MaxMessage {
			return &SetupError{fmt.Errorf("--size: messages of up to %d bytes, and the server at %s takes %d: serve --max-message=%d",
				n, r.target.Addr, s.MaxMessage, n)}
		}
	}
	for i := range r.cfg.Conns {
		r.links = append(r.links, &link{r: r, index: i, addr: addr})
	}
	r.makeLanes()
	return nil
}

func (r *run) makeLanes() {
	mode := peer.Echo
	switch r.cfg.Workload {
	case OneWay:
		mode = peer.Discard
	case Idle:
		mode = peer.Park
	}
	for _, k := range r.links {
		for range r.cfg.Streams {
			r.lanes = append(r.lanes, r.newLane(k, mode))
		}
		for range r.cfg.BulkStreams {
			l := r.newLane(k, peer.Discard)
			l.size, l.bulk, l.q = &r.cfg.BulkSize, true, nil
			r.bulk = append(r.bulk, l)
		}
	}
}

func (r *run) newLane(k *link, mode peer.Mode) *lane {
	l := &lane{r: r, link: k, mode: mode, size: &r.cfg.Size, index: len(r.lanes)}
	if r.cfg.Open() {
		l.q = newQueue()
	}
	if mode == peer.Echo && r.sampling {
		n := 1
		for n < max(r.cfg.Outstanding, r.cfg.InFlight) {
			n *= 2
		}
		l.times = make([]stamp, n)
	}
	return l
}

// openAll opens every stream, and measures what that took in memory.
func (r *run) openAll(ctx context.Context) (*report.Memory, error) {
	before, err := r.readings(ctx, true)
	if err != nil {
		return nil, err
	}
	r.watch(Progress{Phase: Opening, Length: r.cfg.Length()})
	begin := time.Now()
	if err := r.openInTime(ctx, openLimit); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	if r.cfg.Workload == Churn || r.cfg.Workload == Call {
		return nil, nil
	}
	if err := r.awaitServer(ctx); err != nil {
		return nil, err
	}
	after, err := r.readings(ctx, true)
	if err != nil {
		return nil, err
	}
	m := &report.Memory{Streams: len(r.lanes) + len(r.bulk), Conns: len(r.links), OpenSeconds: took.Seconds()}
	streams, conns := float64(m.Streams), float64(m.Conns)
	grown := func(a, b uint64) float64 { return float64(b) - float64(a) }
	client := grown(before.client.LiveBytes, after.client.LiveBytes)
	server := grown(before.server.LiveBytes, after.server.LiveBytes)
	m.ClientPerStream, m.ClientPerConn = client/streams, client/conns
	m.ServerPerStream, m.ServerPerConn = server/streams, server/conns
	m.ClientRSS = grown(before.client.RSS, after.client.RSS) / streams
	m.ServerRSS = grown(before.server.RSS, after.server.RSS) / streams
	return m, nil
}

// openLimit is how long opening may take beyond what OpenRate asks for.
const openLimit = 30 * time.Second

// openInTime opens every stream. It fails if ctx ends or the limit passes before: a
// library may wait for ever for a stream that the server does not allow.
func (r *run) openInTime(ctx context.Context, limit time.Duration) error {
	lanes := len(r.lanes) + len(r.bulk)
	if r.cfg.OpenRate > 0 {
		limit += time.Duration(float64(lanes) / float64(r.cfg.OpenRate) * 1e9)
	}
	var late atomic.Bool
	t := time.AfterFunc(limit, func() {
		late.Store(true)
		r.closeConns()
	})
	defer t.Stop()
	stop := context.AfterFunc(ctx, r.closeConns)
	defer stop()
	err := r.openLanes(ctx)
	if late.Load() {
		return fmt.Errorf("%s at %s: only %d of %d streams opened in %v: the server may allow no more (serve --max-streams, --max-conns)",
			r.target.Peer.Name(), r.target.Addr, r.ids.Load(), lanes, limit)
	}
	return err
}

// openers is how many streams are being opened at a time.
const openers = 16

// openLanes opens connections and streams, at OpenRate if it is set.
func (r *run) openLanes(ctx context.Context) error {
	for _, k := range r.links {
		if err := k.dial(ctx); err != nil {
			return err
		}
	}
	if r.cfg.Workload == Churn { // its streams come and go
		s, err := r.links[0].open(r.ctx, r.links[0].current(), peer.Echo)
		if err != nil {
			return err
		}
		return s.Close()
	}
	lanes := append(r.lanes[:len(r.lanes):len(r.lanes)], r.bulk...)
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, openers)
	begin := time.Now()
	for i := range openers {
		wg.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(lanes) {
					return
				}
				due := begin
				if r.cfg.OpenRate > 0 {
					due = due.Add(time.Duration(float64(n) / float64(r.cfg.OpenRate) * 1e9))
				}
				if !r.sleep(r.ctx, max(time.Until(due), 0)) {
					return
				}
				errs[i] = lanes[n].open(r.ctx, lanes[n].link.current())
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, err := range errs {
		if err != nil {
			return err // the others say the same
		}
	}
	return nil
}

// awaitServer waits until the server serves all streams: some libraries do not wait for
// the server in Open.
func (r *run) awaitServer(ctx context.Context) error {
	if r.server == nil {
		return nil
	}
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		s, err := r.server.Fetch(ctx, false)
		if err != nil {
			return err
		}
		if s.Streams >= int64(len(r.lanes)+len(r.bulk)) {
			return nil
		}
		r.sleep(ctx, 5*time.Millisecond)
	}
	return nil // not every server counts its streams
}

// readings are those of both processes at one time.
type readings struct{ client, server proc.Stats }

func (r *run) readings(ctx context.Context, collect bool) (readings, error) {
	var rd readings
	var err error
	if r.server != nil {
		rd.server, err = r.server.Fetch(ctx, collect)
	}
	if collect {
		proc.Collect()
	}
	rd.client = proc.Read() // also if the server is lost
	return rd, err
}
