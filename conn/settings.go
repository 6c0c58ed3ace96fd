package conn

import (
	"math"

	"github.com/sluicerpc/sluice/frame"
)

// newSettings takes settings that the peer has changed. The credit of open streams
// changes by as much as the initial credit, up or down. If more streams are allowed,
// those who wait for one are told.
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

// startCredit is the credit that streams of ours begin with, in 32 bits: streams are many, and
// have to be small. One that can change is below 4 GiB: see frame.NewSettings.
func startCredit(s *frame.Settings) uint32 { return uint32(min(s.InitialCredit, math.MaxUint32)) }

// creditChange is by how much the initial credit has changed since p's stream was made.
// newSettings does not find a stream without a number. mu is held.
func (c *Conn) creditChange(p *Port) int64 {
	return int64(startCredit(c.peerSettings.Load())) - int64(p.initialCredit)
}
