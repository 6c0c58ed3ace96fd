package peer

import (
	"errors"
	"fmt"
	"io"
)

// Handle serves one accepted stream in mode m until its client ends it, and
// ends its own half. Closing the stream is left to the caller.
func (o Options) Handle(m Mode, s Stream) error {
	if o.Serving != nil {
		o.Serving.Add(1)
		defer o.Serving.Add(-1)
	}
	switch m {
	case Echo:
		return echo(s)
	case Discard:
		return discard(s)
	case Park:
		return park(s)
	}
	return fmt.Errorf("peer: unknown mode %q", byte(m))
}

func echo(s Stream) error {
	for {
		p, err := s.Recv()
		if err != nil {
			return ended(s, err)
		}
		b := s.Buf(len(p))
		copy(b, p)
		if err := s.Send(b); err != nil {
			return err
		}
	}
}

func discard(s Stream) error {
	var c Checker
	for {
		p, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		c.Check(p)
	}
	sum := c.Summary()
	b := s.Buf(SummarySize)
	sum.Put(b)
	if err := s.Send(b); err != nil {
		return err
	}
	return s.CloseSend()
}

func park(s Stream) error {
	for {
		if _, err := s.Recv(); err != nil {
			return ended(s, err)
		}
	}
}

// ended answers the end of the client's half with the end of ours.
func ended(s Stream, err error) error {
	if errors.Is(err, io.EOF) {
		return s.CloseSend()
	}
	return err
}
