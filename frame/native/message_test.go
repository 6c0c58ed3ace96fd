package native

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Message appends one message.
func (s *Session) Message(o *frame.Out, id uint64, m pool.Message) {
	var run pool.Queue
	run.Push(m)
	s.Messages(o, id, run)
}
