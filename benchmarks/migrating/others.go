package migrating

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"
)

var _ = []any{serveSession, uploadFile, serveSocket, askSocket}

func serveSession(nc net.Conn, save func(r io.Reader) error) error {
	session, err := yamux.Server(nc, nil)
	if err != nil {
		return err
	}
	for {
		s, err := session.AcceptStream()
		if err != nil {
			return err
		}
		go func() {
			defer s.Close()
			status := uint32(0)
			if save(s) != nil {
				status = 1 // a status is yours to invent
			}
			_ = binary.Write(s, binary.BigEndian, status)
		}()
	}
}

func uploadFile(session *yamux.Session, f *os.File) error {
	s, err := session.OpenStream()
	if err != nil {
		return err
	}
	if _, err := io.Copy(s, f); err != nil {
		return err
	}
	if err := s.Close(); err != nil { // our half; what comes back can still be read
		return err
	}
	var status uint32
	return binary.Read(s, binary.BigEndian, &status)
}

func serveSocket(w http.ResponseWriter, r *http.Request) {
	var upgrader websocket.Upgrader
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(kind, p); err != nil {
			return
		}
	}
}

func askSocket(url, text string) (string, error) {
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		return "", err
	}
	_, p, err := c.ReadMessage()
	return string(p), err
}
