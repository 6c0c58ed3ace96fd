package conn

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// lagTime is how long Loops waits at most for a loop that does not run.
const lagTime = 100 * time.Millisecond

// loops are the event loops that have had a connection.
type loops struct {
	mu sync.Mutex
	of []*loop
}

// A loop is what is known of one event loop.
type loop struct {
	number  int
	gnet    gnet.EventLoop
	conns   atomic.Int64
	wakeups atomic.Uint64

	mu    sync.Mutex
	probe *probe // that has not run yet; nil: none
}

// A probe is a task that is given to a loop to see when it runs.
type probe struct {
	begun time.Time
	lag   time.Duration // set before ran is closed
	ran   chan struct{}
}

// get returns the loop that el is.
func (ls *loops) get(el gnet.EventLoop) *loop {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.of {
		if l.gnet == el {
			return l
		}
	}
	l := &loop{number: len(ls.of), gnet: el}
	ls.of = append(ls.of, l)
	return l
}

// all returns the loops by number.
func (ls *loops) all() []*loop {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.of[:len(ls.of):len(ls.of)]
}

// LoopInfos returns the figures of the event loops that have had a connection. It measures
// their lag, for which it waits up to 100 ms.
func LoopInfos() []LoopInfo {
	e := shared
	e.mu.Lock()
	h := e.handler
	e.mu.Unlock()
	if h == nil {
		return nil
	}
	ls := h.loops.all()
	probes := make([]*probe, len(ls))
	for i, l := range ls {
		probes[i] = l.ask()
	}
	limit := time.NewTimer(lagTime)
	defer limit.Stop()
	infos := make([]LoopInfo, len(ls))
	for i, l := range ls {
		infos[i] = LoopInfo{Conns: int(l.conns.Load()), Wakeups: l.wakeups.Load(), Lag: probes[i].await(limit)}
	}
	return infos
}

// ask gives the loop a task, unless an earlier one waits still.
func (l *loop) ask() *probe {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.probe == nil {
		p := &probe{begun: time.Now(), ran: make(chan struct{})}
		if l.gnet.Execute(context.Background(), gnet.RunnableFunc(func(context.Context) error { l.answer(p); return nil })) != nil {
			close(p.ran) // the loops have just stopped
			return p
		}
		l.probe = p
	}
	return l.probe
}

// answer is the task.
func (l *loop) answer(p *probe) {
	p.lag = time.Since(p.begun)
	close(p.ran)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.probe == p {
		l.probe = nil
	}
}

// await returns the lag, or how long the probe has waited so far when limit ends.
func (p *probe) await(limit *time.Timer) time.Duration {
	select {
	case <-p.ran:
		return p.lag
	case <-limit.C:
		limit.Reset(0) // for the next one
		return time.Since(p.begun)
	}
}
