package load

import (
	"errors"
	"io"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// cycle opens a stream, gets one echo and closes it. due is when that was due to begin.
func (l *lane) cycle(due int64) error {
	start := l.r.now()
	s, err := l.link.open(l.r.ctx, l.link.current(), l.mode)
	if err != nil {
		return err
	}
	l.current.Store(&s)
	l.sent++
	if err := l.echoOnce(s); err != nil {
		_ = s.Close() // it broke already
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	l.got++
	end := l.r.now()
	if l.sampled(l.got) {
		l.r.service(l, end-start)
	}
	if l.q != nil && l.sampled(l.got) {
		l.r.response(l, end-due)
	}
	return nil
}

func (l *lane) echoOnce(s peer.Stream) error {
	p := s.Buf(l.size.At(l.sent))
	peer.Stamp(p, l.r.ids.Add(1), 0)
	l.want = append(l.want[:0], p...)
	if err := s.Send(p); err != nil {
		return err
	}
	if err := errors.Join(s.Flush(), s.CloseSend()); err != nil {
		return err
	}
	checks := report.Checks{Messages: 1}
	for n := 0; ; n++ {
		p, err := s.Recv()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				checks.Lost++
			}
			l.r.check(checks)
			return nil
		}
		if err != nil {
			return err
		}
		l.bytes += uint64(len(p))
		if string(p) != string(l.want) {
			checks.Corrupted++
		} else if n > 0 {
			checks.Duplicated++
		}
	}
}
