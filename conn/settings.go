package conn

import "github.com/sluicerpc/sluice/frame"

// PeerSettings is what the peer says about itself, as of now. It is not to be changed.
func (c *Conn) PeerSettings() *frame.Settings { return c.peerSettings.Load() }

// newSettings takes settings that the peer has changed. Streams that are open have their
// credit changed by as much as the initial one has, up or down; who waits for a stream
// may have one if more are allowed.
func (c *Conn) newSettings(f *frame.Frame) error {
	if err := c.abuse.newSettings(c.in.now); err != nil {
		return err
	}
	now := f.Settings
	c.mu.Lock()
	old := c.peerSettings.Swap(&now)
	delta := int64(now.InitialCredit) - int64(old.InitialCredit)
	var ports []*Port
	if delta != 0 {
		ports = c.table.all()
	}
	free := c.onFree
	c.mu.Unlock()
	for _, p := range ports {
		if err := p.addCredit(delta); err != nil {
			return err
		}
	}
	if now.MaxStreams > old.MaxStreams && free != nil {
		free()
	}
	return nil
}

// addCredit changes the credit of p's stream.
func (p *Port) addCredit(delta int64) error {
	return p.s.Control(&frame.Frame{Kind: frame.NewSettings, Stream: p.id.Load(), Value: uint64(delta)})
}

// outdated is how much the peer's initial credit has changed since p was made, which it
// has not heard of, for it had no number. The lock is held.
func (c *Conn) creditChange(p *Port) int64 {
	return int64(c.peerSettings.Load().InitialCredit) - int64(p.initialCredit)
}
