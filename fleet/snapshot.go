package fleet

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
)

// The states that an endpoint has besides those of a kernel.Client. StateTransientFailure is
// that of one to which no connection can be made: it is tried again after a pause, while
// others are connected in the background alone.
const (
	// StateEjected: it is connected, has failed many calls in a row, and gets none for a while.
	StateEjected kernel.State = "EJECTED"
	// StateDraining: it was removed, and is kept for what is open there.
	StateDraining kernel.State = "DRAINING"
)

// An Info is a fleet at one moment: see Client.Snapshot.
type Info struct {
	Target   string
	Balancer Balancer
	Sets     uint64        // sets of endpoints that were taken
	SetAge   time.Duration // since the last of them; 0: there was none
	Err      string        // what is wrong with what the registry has said last; empty: nothing
	Failures uint64        // attempts to connect, and connections that were needed and could not be made
	// Endpoints are those that the client uses, and those that drain, by address. Beyond a
	// subset there can be more in the registry.
	Endpoints []EndpointInfo
}

// An EndpointInfo is an endpoint of a fleet at one moment.
type EndpointInfo struct {
	Endpoint
	State     kernel.State
	Conns     int           // connections
	Streams   int           // streams and calls that are open on them
	Opens     uint64        // calls, and opens of streams, that went there
	Ejections uint64        // from the start
	Left      time.Duration // of a pause, until it is tried again; 0: there is none
	Err       string        // why the last attempts to connect have failed; empty: the last one has not
}

// Snapshot returns the fleet's figures. It may be called at any time, also after Close.
func (c *Client) Snapshot() Info {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	i := Info{Target: c.target, Balancer: c.opts.Balancer, Sets: c.sets, Err: c.setErr, Failures: c.failed.Load()}
	if c.sets > 0 {
		i.SetAge = now.Sub(c.setAt)
	}
	i.Endpoints = make([]EndpointInfo, 0, len(c.members))
	for _, m := range c.members {
		i.Endpoints = append(i.Endpoints, m.info(c.now(), c.closed))
	}
	slices.SortFunc(i.Endpoints, func(a, b EndpointInfo) int { return cmp.Compare(a.Addr, b.Addr) })
	return i
}

// info is a member at one moment. Client.mu is held.
func (m *member) info(now time.Duration, closed bool) EndpointInfo {
	i := EndpointInfo{Endpoint: m.endpoint, Opens: m.opens.Load(), Ejections: m.ejections.Load()}
	i.Conns, i.Streams = m.streams()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		i.Err = errtext.Clip(errtext.Of(m.err), mostText)
	}
	switch {
	case closed:
		i.State = kernel.StateShutdown
	case m.leaving:
		i.State = StateDraining
	case m.isEjected():
		i.State, i.Left = StateEjected, time.Duration(m.ejected.Load())-now
	case i.Conns > 0 && m.connected():
		i.State = kernel.StateReady
	case m.dialing.Load():
		i.State = kernel.StateConnecting
	case m.failures > 0:
		i.State, i.Left = kernel.StateTransientFailure, max(0, time.Duration(m.next.Load())-now)
	default:
		i.State = kernel.StateIdle
	}
	return i
}

// Conns returns all connections, to whichever endpoint.
func (c *Client) Conns() (conns []*kernel.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if k := m.client.Load(); k != nil {
			conns = append(conns, k.Conns()...)
		}
	}
	return conns
}
