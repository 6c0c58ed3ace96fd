package kernel

// A State is what a client is doing about the connections that its streams share. The
// names are gRPC's. Dedicated connections and those of ConnShort don't count, but their
// failures do, as their pauses do.
type State string

// The states of a client.
const (
	// StateIdle: there is no connection. The next Open makes one.
	StateIdle State = "IDLE"
	// StateConnecting: there is no connection yet, and one is being made.
	StateConnecting State = "CONNECTING"
	// StateReady: there is a connection that takes new streams.
	StateReady State = "READY"
	// StateTransientFailure: the last attempt has failed. The next one comes after a
	// pause, when an Open needs it.
	StateTransientFailure State = "TRANSIENT_FAILURE"
	// StateShutdown: Close was called.
	StateShutdown State = "SHUTDOWN"
)

// clientState is the state of which those who asked know. Client.connMu owns it.
type clientState struct {
	last    State
	changed chan struct{} // closed at the next change; nil if nobody has asked
}

// State returns the client's state, and a channel that is closed when that is no longer its
// state.
func (c *Client) State() (State, <-chan struct{}) {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	c.noteStateLocked()
	if c.state.changed == nil {
		c.state = clientState{last: c.stateLocked(), changed: make(chan struct{})}
	}
	return c.state.last, c.state.changed
}

// noteStateLocked tells those who asked of a change. It must follow every change of what
// stateLocked looks at. The lock is held.
func (c *Client) noteStateLocked() {
	if c.state.changed == nil {
		return
	}
	if s := c.stateLocked(); s != c.state.last {
		c.state.last = s
		close(c.state.changed)
		c.state.changed = nil
	}
}

func (c *Client) stateLocked() State {
	switch {
	case c.closed:
		return StateShutdown
	case c.otherLocked(nil) != nil:
		return StateReady
	case c.dialing != nil && !c.dialing.when.inPause():
		return StateConnecting
	case c.dialing != nil || c.failures > 0:
		return StateTransientFailure
	}
	return StateIdle
}
