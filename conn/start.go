package conn

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

func newConn(cfg Config) *Conn {
	c := &Conn{cfg: cfg, sess: cfg.Session, size: ConnSize}
	c.lim = cfg.Limits
	c.caps = c.sess.Caps()
	c.pacing, c.maxStream = c.caps.Pacing, c.caps.MaxStream
	c.firstWindow = max(c.lim.ConnWindow, c.caps.ConnWindow)
	c.window.Store(int64(c.firstWindow))
	c.advertised.Store(uint64(c.firstWindow))
	if cfg.RTT > 0 {
		c.trip.add(int64(cfg.RTT), 0)
	}
	if c.pacing == frame.Unpaced {
		c.pause.resume = make(chan struct{}, 1)
	}
	c.flusher = c.flushSoon
	c.began = time.Now()
	c.life.init(&c.cfg)
	c.loop.Store(-1)
	c.flight.bound.Store(int64(c.lim.InFlight))
	c.out.tokens = 1
	c.peerSettings.Store(&c.cfg.Peer)
	c.granted.Store(cfg.Peer.ConnCredit)
	c.sendWindow.Store(int64(cfg.Peer.ConnCredit))
	if c.pacing == frame.Granted { // else overLimit computes the bound when it is needed
		c.in.limit = uint64(c.firstWindow)
	}
	c.nextLocal = 2
	if cfg.Client {
		c.nextLocal = 1
	}
	c.goAway.lastStream = c.maxStream
	return c
}

// start starts the connection's timer, and measures its round trip.
func (c *Conn) start() {
	next := c.nextCheck(0)
	c.health.checkDue = int64(next)
	c.cfg.Timers.Set(&c.timer, c, c.began.Add(next))
	e := &c.ending
	switch { // it may have ended before: then this has replaced what that had set
	case e.finished.Load():
		c.cfg.Timers.Stop(&c.timer)
	case e.lingers.Load():
		c.linger(time.Duration(e.lingerFor.Load()))
	}
	rtt, pings := int64(c.cfg.RTT), c.caps.ReadReports || c.pacing == frame.Granted && c.caps.Ping && c.caps.PingIdle
	if pings && (rtt == 0 || rtt > shortPath) {
		c.ping(1) // the handshake's time is not the path's alone
	}
}
