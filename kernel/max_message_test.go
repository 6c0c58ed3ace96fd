package kernel_test

import (
	"bytes"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// TestMaxMessageAloneIsEnough: a program that raises the largest message beyond the
// default of another limit need not know of that one.
func TestMaxMessageAloneIsEnough(t *testing.T) {
	const size = 65 << 20
	limits := kernel.Limits{MaxMessage: size}
	srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: limits}, &kernel.ClientOptions{Limits: limits})
	a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
	want := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	if err := a.Send(t.Context(), pool.Copy(want)); err != nil {
		t.Fatal(err)
	}
	m, err := b.Receive(t.Context())
	if err != nil || !bytes.Equal(m.Bytes(), want) {
		t.Fatalf("received %d bytes of %d, error %v", m.Len(), size, err)
	}
}
