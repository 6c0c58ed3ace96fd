package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
)

// serve -admin shows the server's streams; with a token the pages change it, its level of logging too.
func TestPages(t *testing.T) {
	const secret = "a token of enough bytes"
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := start(t, "serve", "-addr", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-admin-token", token)
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(srv.wantLine(`^pages at http://127\.0\.0\.1:\d+/\n$`))
	addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(srv.wantLine(`^serving echo`))
	p := start(t, "call", "-addr", addr)
	p.echo("hello")
	get := func(method, path, form, secret string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	ask := func(method, path, form, secret string, code int, want string) {
		t.Helper()
		if got, body := get(method, path, form, secret); got != code || !strings.Contains(body, want) {
			t.Errorf("%s %s: %d %s, want %d %s", method, path, got, body, code, want)
		}
	}
	ask(http.MethodGet, "/streams?format=json", "", "", 200, `"method":"echo"`)
	brief := start(t, "call", "-addr", addr)
	brief.echo("over soon")
	if err := brief.in.Close(); err != nil {
		t.Fatal(err)
	}
	brief.end().wantOK(t)
	for _, path := range []string{"/methods", "/closed"} { // by what the server has told its Observer
		testkit.Eventually(t, path, func() bool {
			_, body := get(http.MethodGet, path+"?format=json", "", "")
			return strings.Contains(body, `"method":"echo"`)
		})
	}
	ask(http.MethodGet, "/config", "", "", 200, "INFO")
	ask(http.MethodPost, "/actions/level", "level=DEBUG", "wrong", 401, "wrong token")
	ask(http.MethodPost, "/actions/level", "level=DEBUG", secret, 200, "The level is DEBUG.")
	ask(http.MethodGet, "/config", "", "", 200, "DEBUG")
	ask(http.MethodPost, "/actions/drain", "server=echo", secret, 200, "echo drains")
	ask(http.MethodGet, "/readyz", "", "", 503, "echo is draining")
	if err := p.in.Close(); err != nil {
		t.Fatal(err)
	}
	p.end().wantOK(t)
}
