package reliability

import "fmt"

// judge compares what both sides know, and notes what must not be.
func (r *running) judge(o *outcome, res *Result) {
	bad := append(r.wrongs, r.told.wrong()...)
	for _, w := range res.Wrong {
		bad = append(bad, "server: "+w)
	}
	servers := map[uint64]*account{}
	for i := range res.Accounts {
		servers[res.Accounts[i].Key] = &res.Accounts[i]
	}
	for i := range r.accounts {
		c := &r.accounts[i]
		s := servers[c.Key]
		if s == nil {
			s = &account{Key: c.Key}
		}
		delete(servers, c.Key)
		n := int(c.Key & 0xff)
		for _, w := range append(prefixed("client", c.Wrong), prefixed("server", s.Wrong)...) {
			bad = append(bad, fmt.Sprintf("stream %d: %s", n, w))
		}
		for _, w := range both(c, s, r.caps.Ended) {
			bad = append(bad, fmt.Sprintf("stream %d: %s; client %+v; server %+v", n, w, *c, *s))
		}
		r.count(o, c, n)
		if c.Err != "" {
			o.ends = append(o.ends, c.Err)
		}
		if w := r.unharmed(o, c, n); w != "" {
			bad = append(bad, fmt.Sprintf("stream %d: %s; client %+v; server %+v", n, w, *c, *s))
		}
	}
	for k, s := range servers {
		bad = append(bad, fmt.Sprintf("stream %d: a handler has begun for what nobody has opened; server %+v", k&0xff, *s))
	}
	o.wrong = bad
}

func prefixed(who string, all []string) (out []string) {
	for _, w := range all {
		out = append(out, who+": "+w)
	}
	return out
}

// both says what is wrong with two accounts of one stream or call.
// acks tells that an end in order means that the peer's application has had all.
func both(c, s *account, acks bool) (bad []string) {
	if s.Begun > 1 {
		bad = append(bad, fmt.Sprintf("doubled: %d handlers have begun", s.Begun))
	}
	if c.Refused && s.Begun > 0 {
		bad = append(bad, "said not to be processed, and a handler has run")
	}
	if c.Answered && s.Begun == 0 {
		bad = append(bad, "a call is answered that no handler has seen")
	}
	for _, h := range []struct {
		name       string
		from, to   *account
		fromServer bool
	}{{"to the server", c, s, false}, {"to the client", s, c, true}} {
		switch {
		case h.to.Got > h.from.Sent+1 || h.to.Got > h.from.Sent && h.from.Err == "": // the last may be under way as the stream fails
			bad = append(bad, fmt.Sprintf("doubled: %s %d messages were taken of %d", h.name, h.to.Got, h.from.Sent))
		case h.to.Clean && !h.from.Ended:
			bad = append(bad, fmt.Sprintf("falsely ended: %s nobody has ended the half", h.name))
		case h.to.Clean && h.to.Got != h.from.Sent:
			bad = append(bad, fmt.Sprintf("lost: %s %d of %d messages before the end in order", h.name, h.to.Got, h.from.Sent))
		case h.from.Acked && acks && h.to.Got != h.from.Sent:
			bad = append(bad, fmt.Sprintf("lost though reported ok: %s %d of %d messages", h.name, h.to.Got, h.from.Sent))
		}
	}
	// The handler returns nil when it has taken all, so that an end in order says so.
	if c.Clean && !s.Ended {
		bad = append(bad, "falsely ended: the handler has not returned nil")
	}
	return bad
}

func (r *running) count(o *outcome, c *account, n int) {
	switch {
	case c.Refused:
		o.refused++
	case n >= firstCall:
	case c.Clean || c.Acked:
		o.whole++
	default:
		o.broken++
	}
}

// unharmed says what is wrong with a stream or call that nothing has happened to.
func (r *running) unharmed(o *outcome, c *account, n int) string {
	harmed := o.struck && r.sc.fault.kind.loses() || n > again-30 && n < again || n == again && o.struck
	if r.sc.fault.kind == blackhole { // a busy machine answers too late for such a keepalive
		harmed = true
	}
	switch {
	case harmed:
	case n >= firstCall && !c.Answered, n < firstCall && !c.Clean && !c.Acked:
		return "lost: nothing has broken the connection"
	case n < firstCall && c.Err != "":
		return "an error, though the stream is whole"
	}
	return ""
}
