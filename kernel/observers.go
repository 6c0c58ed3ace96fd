package kernel

// Observers returns an Observer that tells all of these of everything, in their order: metrics,
// traces and the admin pages of one server. Those that are nil are left out; of one Observer it is
// that one, and of none nil. One that panics keeps no other from being told.
//
// A slow one is slow for all. What it returns for several has a method Unwrap() []Observer.
func Observers(all ...Observer) Observer {
	var os observers
	for _, o := range all {
		if o != nil {
			os = append(os, o)
		}
	}
	switch len(os) {
	case 0:
		return nil
	case 1:
		return os[0]
	}
	return os
}

type observers []Observer

// Unwrap lists them.
func (os observers) Unwrap() []Observer { return os }

// each calls f with every one, also behind one that panics or ends the goroutine.
func (os observers) each(f func(Observer)) {
	if len(os) > 0 {
		defer os[1:].each(f)
		f(os[0])
	}
}

func (os observers) ConnBegun(c *Conn)             { os.each(func(o Observer) { o.ConnBegun(c) }) }
func (os observers) ConnEnded(c *Conn, i ConnInfo) { os.each(func(o Observer) { o.ConnEnded(c, i) }) }
func (os observers) StreamBegun(s *Stream)         { os.each(func(o Observer) { o.StreamBegun(s) }) }
func (os observers) StreamEnded(s *Stream, i StreamInfo) {
	os.each(func(o Observer) { o.StreamEnded(s, i) })
}
