package conn

// A list is ports in a row, linked through fields of theirs.
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

// The links of a port, for remove.
func controlLink(p *Port) **Port { return &p.nextControl }
func dataLink(p *Port) **Port    { return &p.nextData }
func roomLink(p *Port) **Port    { return &p.nextRoom }

// remove takes p out of the list that link belongs to, if it is there.
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
