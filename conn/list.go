package conn

// A list is ports in a row, linked through themselves.
type list struct{ head, tail *Port }

func (l *list) pushControl(p *Port) {
	p.nextControl = nil
	if l.head == nil {
		l.head = p
	} else {
		l.tail.nextControl = p
	}
	l.tail = p
}

func (l *list) pushData(p *Port) {
	p.inData, p.nextData = true, nil
	if l.head == nil {
		l.head = p
	} else {
		l.tail.nextData = p
	}
	l.tail = p
}

func (l *list) pushFront(p *Port) {
	p.inData = true
	if p.nextData = l.head; l.head == nil {
		l.tail = p
	}
	l.head = p
}

func (l *list) popData() *Port {
	p := l.head
	if p != nil {
		l.head, p.nextData, p.inData = p.nextData, nil, false
	}
	return p
}

func (l *list) pushRoom(p *Port) {
	p.nextRoom = nil
	if l.head == nil {
		l.head = p
	} else {
		l.tail.nextRoom = p
	}
	l.tail = p
}

func (l *list) popRoom() *Port {
	p := l.head
	if p != nil {
		l.head, p.nextRoom = p.nextRoom, nil
	}
	return p
}

// Where a port's links are, for cut.
func controlLink(p *Port) **Port { return &p.nextControl }
func dataLink(p *Port) **Port    { return &p.nextData }
func roomLink(p *Port) **Port    { return &p.nextRoom }

// cut takes p out of the list that link is of, if it is there.
func (l *list) remove(p *Port, link func(*Port) **Port) {
	var before *Port
	for q := l.head; q != nil; before, q = q, *link(q) {
		if q != p {
			continue
		}
		if before == nil {
			l.head = *link(p)
		} else {
			*link(before) = *link(p)
		}
		if l.tail == p {
			l.tail = before
		}
		*link(p) = nil
		return
	}
}

// leave takes a stream that is over out of line: it has nothing to write, and it can be
// long until a flush would find that out. One that is unborn was given up before it had
// a number.
func (o *output) remove(p *Port, unnumbered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if unnumbered {
		o.control.remove(p, controlLink)
	}
	if p.inData {
		o.data.remove(p, dataLink)
	}
	if p.inRoom {
		o.room.remove(p, roomLink)
	}
	p.inData, p.inRoom, p.removed = false, false, true
}
