package conn

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
)

// serveOnLoop returns a connection that an event loop reads, and the peer's end.
func serveOnLoop(t *testing.T, e *Engine, h Handler) (*Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Serve(nc, Config{
		Session: native.New(native.DefaultMaxFragment), Limits: limits(Limits{}), Handler: h,
		Timers: &timers.Queue{}, Remote: nc.RemoteAddr(), Peer: frame.Settings{ConnCredit: 1 << 20},
	}, nil, func(*Conn) {})
	if err != nil {
		t.Fatal(err)
	}
	return c, peer
}

// A loop that is busy is seen to be, for as long as it is.
func TestALoopThatIsBusyLags(t *testing.T) {
	e, err := Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Release()
	h := &refuser{closed: make(chan error, 1)}
	c, peer := serveOnLoop(t, e, h)
	n := int(c.Info(time.Now()).Loop)
	l := e.handler.loops.all()[n]
	if i := LoopInfos()[n]; i.Conns != 1 || i.Wakeups == 0 || i.Lag <= 0 {
		t.Errorf("at first: %+v", i)
	}
	busy, free := make(chan struct{}), make(chan struct{})
	if err := l.gnet.Execute(context.Background(), gnet.RunnableFunc(func(context.Context) error {
		close(busy)
		<-free
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	<-busy
	first := LoopInfos()[n].Lag
	second := LoopInfos()[n].Lag // of the same probe
	if first < lagTime || second < first+lagTime {
		t.Errorf("a loop that does not run lags by %v, then by %v", first, second)
	}
	close(free)
	for LoopInfos()[n].Lag >= lagTime { // a loop that runs lags less, on a machine that has time for it
	}
	before := LoopInfos()[n].Wakeups
	_ = peer.Close()
	<-h.closed
	if i := LoopInfos()[n]; i.Conns != 0 || i.Wakeups <= before {
		t.Errorf("at last: %+v", i)
	}
}

func TestNoLoopsNoInfos(t *testing.T) {
	if ls := LoopInfos(); len(ls) != 0 {
		t.Errorf("without loops: %+v", ls)
	}
}
