package conn

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher notifies connections when their full sockets can be written again. It is one
// goroutine on an epoll descriptor, which the runtime's poller watches: it costs no
// thread. A socket is added when a write to it has to wait.
type watcher struct {
	file *os.File // of epoll
	fd   int
	done chan struct{}

	mu    sync.Mutex
	conns map[int32]watched
}

// watched is a connection whose socket is in epoll.
type watched struct {
	t     *loopConn
	armed bool // it is to be notified
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &watcher{
		file: os.NewFile(uintptr(fd), "epoll"), fd: fd,
		done: make(chan struct{}), conns: map[int32]watched{},
	}
	go w.run()
	return w, nil
}

// add has t notified once, when fd can be written.
func (w *watcher) add(fd int, t *loopConn) {
	w.mu.Lock()
	w.conns[int32(fd)] = watched{t, true}
	w.mu.Unlock()
	ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLONESHOT, Fd: int32(fd)}
	if unix.EpollCtl(w.fd, unix.EPOLL_CTL_MOD, fd, &ev) == unix.ENOENT {
		_ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, fd, &ev)
	}
}

// remove forgets fd, which is about to be closed.
func (w *watcher) remove(fd int) {
	w.mu.Lock()
	_, there := w.conns[int32(fd)]
	delete(w.conns, int32(fd))
	w.mu.Unlock()
	if there {
		_ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// disarm returns the connection to notify of an event of fd, or nil. It returns each
// connection once for each add: an event may be late, and for a connection that had the
// same descriptor before.
func (w *watcher) disarm(fd int32) *loopConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.conns[fd]
	if !e.armed {
		return nil
	}
	w.conns[fd] = watched{e.t, false}
	return e.t
}

func (w *watcher) close() {
	_ = w.file.Close()
	<-w.done
}

func (w *watcher) run() {
	defer close(w.done)
	rc, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	evs := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := rc.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), evs, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, ev := range evs[:n] {
			if t := w.disarm(ev.Fd); t != nil {
				t.writable()
			}
		}
	}
}
