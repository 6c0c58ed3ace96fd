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
	p.nextData = nil
	if l.head == nil {
		l.head = p
	} else {
		l.tail.nextData = p
	}
	l.tail = p
}

func (l *list) pushFront(p *Port) {
	if p.nextData = l.head; l.head == nil {
		l.tail = p
	}
	l.head = p
}

func (l *list) popData() *Port {
	p := l.head
	if p != nil {
		l.head, p.nextData = p.nextData, nil
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
