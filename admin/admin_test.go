package admin

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs"
)

// treeStore is an exports.Store with a version for each name.
type treeStore struct {
	names []string
	fails bool // no version can be opened
}

func (s *treeStore) Versions() ([]exports.Version, error) {
	var list []exports.Version
	for i, name := range s.names {
		var digest fs.Digest
		id := uint64(i + 1)
		binary.BigEndian.PutUint64(digest[:], id)
		list = append(list, exports.Version{Name: name, Digest: digest, Open: func() (fs.Tree, error) {
			if s.fails {
				return nil, errors.New("it is damaged")
			}
			return fstest.Sample().Mem(id), nil
		}})
	}
	return list, nil
}

// operated is a server for operators on loopback, and on the socket of its first image.
type operated struct {
	*Server
	exports *exports.Exports
	states  map[string]*exports.State
	dir     string // state directory of the first image
	url     string
	stop    func() // ends the serving and waits for it
}

// operate serves images, each of which has the versions v1 and v2; change may change the
// configuration, and the stores, before.
func operate(t *testing.T, images []string, change func(*Config, map[string]*treeStore)) *operated {
	t.Helper()
	o := &operated{states: map[string]*exports.State{}}
	stores := map[string]*treeStore{}
	config := exports.Config{Allow: exports.DefaultAllow(), Log: zap.NewNop()}
	for _, name := range images {
		stores[name] = &treeStore{names: []string{"v1", "v2"}}
		dir := t.TempDir()
		if o.dir == "" {
			o.dir = dir
		}
		o.states[name] = exports.OpenState(dir)
		config.Images = append(config.Images, exports.Image{Name: name, Dir: "/srv/" + name, StateDir: dir, Versions: stores[name]})
	}
	cfg := Config{
		Status:  func(_ context.Context, image string) (any, error) { return map[string]string{"image": image}, nil },
		Rollout: func(image string) (exports.Rollout, error) { return o.states[image].Rollout() },
		Versions: func(image string) ([]Version, error) {
			return []Version{{Name: "v1", Sealed: time.Unix(1000, 0)}, {Name: "v2", Sealed: time.Unix(2000, 0)}, {Name: "v3", Damaged: true}}, nil
		},
		Content: func() Content { return Content{Checked: 4711, Damaged: 1} },
		Boot:    func() BootFiles { return BootFiles{Running: 1, Sent: 2, Aborted: 3, Failed: 4, Refused: 5, Bytes: 6} },
		Allow:   exports.DefaultAllow(),
		Build:   "of a test",
		Log:     zap.NewNop(),
	}
	if change != nil {
		change(&cfg, stores)
	}
	var err error
	if o.exports, err = exports.New(config); err != nil {
		t.Fatal(err)
	}
	cfg.Exports = o.exports
	cfg.NFS = nfs.New(nfs.Config{Exports: o.exports, Log: zap.NewNop()})
	o.Server = New(cfg)
	o.serve(t, images[0])
	return o
}

func (o *operated) serve(t *testing.T, image string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := Listen(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	o.url = "http://" + tcp.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- o.ServeTCP(ctx, tcp) }()
	go func() { done <- o.ServeStore(ctx, socket, image) }()
	stopped := false
	o.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	}
	t.Cleanup(o.stop)
}

// promote promotes a version of an image, as a command does.
func (o *operated) promote(t *testing.T, image, name string, id byte) {
	t.Helper()
	ref := exports.Ref{Version: name, Digest: fs.Digest{7: id}}
	if _, _, err := o.states[image].Promote(exports.Promotion{Ref: ref, By: "test"}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// mount mounts an image from an address.
func (o *operated) mount(t *testing.T, addr, path string) {
	t.Helper()
	peer := o.exports.Peer(netip.AddrPortFrom(netip.MustParseAddr(addr), 700))
	if _, err := o.exports.Mount(peer, path, exports.Caller{Booting: true}); err != nil {
		t.Error(err)
	}
}

// ask makes a request over TCP, and returns the status and the body.
func (o *operated) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, o.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(all)
}

// TestAnswers asks for what there is, and what there is not.
func TestAnswers(t *testing.T) {
	o := operate(t, []string{"pi", "x86"}, nil)
	o.promote(t, "pi", "v1", 1)
	o.mount(t, "10.0.0.7", "/pi")
	for _, c := range []struct {
		method, path, body string
		status             int
		has                string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/readyz", "", 503, "image x86: no version is promoted"},
		{"GET", "/v1/nodes?image=pi", "", 200, `"address": "10.0.0.7"`},
		{"GET", "/v1/nodes?image=x86", "", 200, "[]"},
		{"GET", "/v1/nodes", "", 400, "/v1/nodes?image=pi or x86"},
		{"GET", "/v1/nodes?image=arm", "", 404, "there are pi, x86"},
		{"GET", "/v1/nodes?image=%00%ff%22", "", 404, "there are pi, x86"},
		{"GET", "/v1/history?image=pi", "", 200, `"by": "test"`},
		{"GET", "/v1/history?image=x86", "", 200, "[]"},
		{"GET", "/v1/status", "", 200, `"x86"`},
		{"GET", "/v1/status?image=pi", "", 200, `"pi"`},
		{"GET", "/v1/status?image=", "", 400, "say which image"},
		{"GET", "/metrics", "", 200, `rootnfsd_nodes{image="pi",state="booting",version="v1"} 1`},
		{"HEAD", "/healthz", "", 200, ""},
		{"HEAD", "/metrics", "", 200, ""},
		{"GET", "/", "", 404, "/v1/nodes"},
		{"GET", "/v1/../healthz", "", 404, "/healthz"},
		{"GET", "/v1/good", "", 405, "/v1/good is for POST"},
		{"POST", "/v1/nodes", "", 405, "GET, HEAD"},
		{"DELETE", "/v1/nodes", "", 405, "GET, HEAD"},
		{"PUT", "/v1/good", "", 405, "POST"},
		{"GET", "/healthz", "something", 413, "no body"},
		{"POST", "/v1/good", strings.Repeat("x", maxBody+1), 413, "1024 bytes"},
	} {
		status, body := o.ask(t, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.has) {
			t.Errorf("%s %s: %d %s; want %d and %q", c.method, c.path, status, body, c.status, c.has)
		}
		if status != 200 {
			var e answerError
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == "" {
				t.Errorf("%s %s: the error is %s: %v", c.method, c.path, body, err)
			}
		}
	}
	o.promote(t, "x86", "v2", 2)
	if err := o.exports.Refresh(); err != nil {
		t.Fatal(err)
	}
	if status, body := o.ask(t, "GET", "/readyz", ""); status != 200 {
		t.Errorf("with all promoted it is not ready: %s", body)
	}
}

// TestBadRequests sends what is no request, or too much of one.
func TestBadRequests(t *testing.T) {
	o := operate(t, []string{"pi"}, nil)
	for name, request := range map[string]string{
		"no HTTP":          "\x80\x00\x00\x28 this is RPC \r\n\r\n",
		"a large header":   "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"a long path":      "GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"endless body":     "POST /v1/good HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
		"negative body":    "POST /v1/good HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
		"two bodies":       "POST /v1/good HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"a huge body":      "POST /v1/good HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n",
		"a proxy's method": "CONNECT /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(o.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, request) // which the server may not take to the end
		answer := make([]byte, 64)
		n, _ := io.ReadFull(c, answer)
		if !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 4") {
			t.Errorf("%s: %q; want a 4xx", name, answer[:n])
		}
	}
	if status, _ := o.ask(t, "GET", "/healthz", ""); status != 200 {
		t.Errorf("after all that: %d", status)
	}
}

// TestGood is about nodes that say that they are well.
func TestGood(t *testing.T) {
	o := operate(t, []string{"pi"}, nil)
	o.promote(t, "pi", "v1", 1)
	if status, body := o.ask(t, "POST", "/v1/good", ""); status != 404 {
		t.Errorf("of an unknown node: %d %s", status, body)
	}
	o.mount(t, "127.0.0.1", "/pi")
	o.mount(t, "10.0.0.7", "/pi")
	if status, body := o.ask(t, "POST", "/v1/good", "yes"); status != 200 || !strings.Contains(body, "127.0.0.1") {
		t.Errorf("%d %s", status, body)
	}
	for _, n := range o.exports.Fleet("pi") {
		if good := !n.Good.IsZero(); good != (n.Address.String() == "127.0.0.1") {
			t.Errorf("%s is good: %v", n.Address, good)
		}
	}
	request, _ := http.NewRequest("POST", "http://rootnfsd/v1/good", nil)
	answer, err := Dial(o.dir).http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 403 {
		t.Errorf("by the socket: %s; want it refused", answer.Status)
	}
}

// TestStrangers is about addresses that may not ask.
func TestStrangers(t *testing.T) {
	o := operate(t, []string{"pi"}, func(c *Config, _ map[string]*treeStore) {
		c.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	for _, path := range []string{"/healthz", "/metrics", "/v1/nodes"} {
		if status, body := o.ask(t, "GET", path, ""); status != 403 || !strings.Contains(body, "--allow") {
			t.Errorf("%s: %d %s; want it refused", path, status, body)
		}
	}
	if status, _ := o.ask(t, "POST", "/v1/good", ""); status != 403 {
		t.Errorf("good: %d", status)
	}
	var list []any
	if err := Dial(o.dir).Get(t.Context(), "/v1/nodes", &list); err != nil {
		t.Errorf("by the socket: %v", err)
	}
}

// TestCrowd has more connections than there may be, all of which send nothing.
func TestCrowd(t *testing.T) {
	for name, c := range map[string]struct {
		allow         []netip.Prefix
		clients, each int
	}{
		"allowed":    {exports.DefaultAllow(), maxConns / maxOfClient, maxOfClient},
		"one client": {exports.DefaultAllow(), 1, maxOfClient},
		"strangers":  {nil, maxStrangers, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := operate(t, []string{"pi"}, func(cfg *Config, _ map[string]*treeStore) { cfg.Allow = c.allow })
			var open []net.Conn
			for i := range c.clients {
				for range c.each {
					open = append(open, o.dialFrom(t, byte(i)))
				}
			}
			last := byte(c.clients) // who has no connection yet
			if name == "one client" {
				conn := o.dialFrom(t, last)
				io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n")
				if n, err := conn.Read(make([]byte, 1)); n != 1 {
					t.Errorf("another client: %v", err)
				}
				last = 0
			}
			more := o.dialFrom(t, last)
			io.WriteString(more, "GET /healthz HTTP/1.0\r\n\r\n")
			if n, err := more.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("one too many got %d bytes, %v; want it closed", n, err)
			}
			var list []any
			if err := Dial(o.dir).Get(t.Context(), "/v1/nodes", &list); err != nil {
				t.Errorf("by the socket: %v", err)
			}
			// Who leaves makes room for another one.
			open[0].Close()
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				conn := o.dialFrom(t, last)
				io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n")
				if n, _ := conn.Read(make([]byte, 1)); n == 1 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("there is never room again")
				}
			}
		})
	}
}

// dialFrom connects from the address 127.0.1.client.
func (o *operated) dialFrom(t *testing.T, client byte) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, client+1)}}
	conn, err := d.Dial("tcp", strings.TrimPrefix(o.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

func TestClientOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1/32",
		"::ffff:192.0.2.1":     "192.0.2.1/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0":         "fe80::/64",
	} {
		if got := clientOf(net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 700))); got.String() != want {
			t.Errorf("%s: %s; want %s", addr, got, want)
		}
	}
	if got := clientOf(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("a socket: %s", got)
	}
}

// TestSlowReaders has clients that ask and take nothing: others are answered meanwhile.
func TestSlowReaders(t *testing.T) {
	large := strings.Repeat("x", 8<<20) // more than sockets hold
	o := operate(t, []string{"pi"}, func(c *Config, _ map[string]*treeStore) {
		c.Status = func(context.Context, string) (any, error) { return large, nil }
	})
	o.patience, o.room = time.Minute, int64(maxAnswers*len(large)+1<<10)
	var slow []net.Conn
	for i := range maxAnswers {
		conn := o.dialFrom(t, byte(i))
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil { // it is being sent
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	if status, body := o.ask(t, "GET", "/v1/nodes", ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := o.ask(t, "GET", "/v1/status", ""); status != 503 || !strings.Contains(body, "later") {
		t.Errorf("more than there is room for: %d", status)
	}
	var list []any
	if err := Dial(o.dir).Get(t.Context(), "/v1/nodes", &list); err != nil {
		t.Errorf("by the socket: %v", err)
	}
	for _, conn := range slow {
		conn.Close()
	}
}

// TestBrowsers is about what a page can have a browser ask.
func TestBrowsers(t *testing.T) {
	o := operate(t, []string{"pi"}, nil)
	o.promote(t, "pi", "v1", 1)
	o.mount(t, "127.0.0.1", "/pi")
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, host, origin string
		status                     int
	}{
		{"GET", "/v1/nodes", "evil.example:2050", "", 403},
		{"GET", "/healthz", "evil.example", "", 403},
		{"GET", "/v1/nodes", "localhost.evil.example", "", 403},
		{"GET", "/v1/nodes", "127.0.0.1.evil.example", "", 403},
		{"POST", "/v1/good", "evil.example", "", 403},
		{"GET", "/v1/nodes", "localhost:2050", "", 200},
		{"GET", "/v1/nodes", "192.0.2.1", "", 200},
		{"GET", "/v1/nodes", "[2001:db8::1]:2050", "", 200},
		{"GET", "/v1/nodes", strings.ToUpper(own) + ":2050", "", 200},
		{"GET", "/v1/nodes", "localhost", "http://evil.example", 200}, // whose answer the browser keeps to itself
		{"POST", "/v1/good", "localhost", "http://evil.example", 403},
		{"POST", "/v1/good", "localhost", "null", 403},
		{"POST", "/v1/good", "localhost", "", 200},
	} {
		request, err := http.NewRequest(c.method, o.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host, request.Close = c.host, true
		if c.origin != "" {
			request.Header.Set("Origin", c.origin)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%+v: %s", c, answer.Status)
		}
	}
}

// TestPanics has all that is asked fail in a way that it must not.
func TestPanics(t *testing.T) {
	o := operate(t, []string{"pi"}, func(c *Config, _ map[string]*treeStore) {
		c.Status = func(context.Context, string) (any, error) { panic("status") }
		c.Content = func() Content { panic("content") }
	})
	for range maxAnswers + 1 { // each gives back its turn
		if status, body := o.ask(t, "GET", "/v1/status", ""); status != 500 || strings.Contains(body, "panic") {
			t.Errorf("%d %s; want a 500 that tells no details", status, body)
		}
	}
	if status, body := o.ask(t, "GET", "/metrics", ""); status != 200 || !strings.Contains(body, "rootnfsd_sent_bytes_total") {
		t.Errorf("metrics: %d; want those that there are", status)
	}
	if status, _ := o.ask(t, "GET", "/healthz", ""); status != 200 {
		t.Errorf("after all that: %d", status)
	}
}

// TestTurns has so many ask for what takes long that others are told to come later.
func TestTurns(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	o := operate(t, []string{"pi"}, func(c *Config, _ map[string]*treeStore) {
		c.Status = func(context.Context, string) (any, error) {
			entered <- struct{}{}
			<-release
			return nil, nil
		}
	})
	o.patience = 10 * time.Millisecond
	answers := make(chan int, maxAnswers)
	for range maxAnswers {
		go func() {
			status, _ := o.ask(t, "GET", "/v1/status", "")
			answers <- status
		}()
		<-entered
	}
	if status, body := o.ask(t, "GET", "/v1/nodes", ""); status != 503 || !strings.Contains(body, "later") {
		t.Errorf("%d %s; want 503", status, body)
	}
	if status, _ := o.ask(t, "GET", "/healthz", ""); status != 200 {
		t.Errorf("health: %d", status)
	}
	close(release)
	for range maxAnswers {
		if status := <-answers; status != 200 {
			t.Errorf("one that had its turn: %d", status)
		}
	}
}

func TestNotReady(t *testing.T) {
	o := operate(t, []string{"pi"}, func(_ *Config, stores map[string]*treeStore) { stores["pi"].fails = true })
	o.promote(t, "pi", "v1", 1)
	if err := o.exports.Refresh(); err != nil {
		t.Fatal(err)
	}
	if status, body := o.ask(t, "GET", "/readyz", ""); status != 503 || !strings.Contains(body, "it is damaged") {
		t.Errorf("%d %s; want 503 and why", status, body)
	}
}

// TestClient asks by the socket of the first of two stores.
func TestClient(t *testing.T) {
	o := operate(t, []string{"pi", "x86"}, nil)
	o.promote(t, "pi", "v1", 1)
	o.mount(t, "10.0.0.7", "/pi")
	c := Dial(o.dir)
	var nodes []exports.NodeStatus
	if err := c.Get(t.Context(), "/v1/nodes", &nodes); err != nil || len(nodes) != 1 || nodes[0].Running != "v1" {
		t.Errorf("%+v, %v; want the node of the store's image", nodes, err)
	}
	var status []struct{ Image string }
	if err := c.Get(t.Context(), "/v1/status", &status); err != nil || len(status) != 1 || status[0].Image != "pi" {
		t.Errorf("%+v, %v; want the status of the store's image", status, err)
	}
	if err := c.Get(t.Context(), "/v1/nodes?image=arm", &nodes); err == nil || !strings.Contains(err.Error(), "there are pi, x86") || NoServer(err) {
		t.Errorf("an image that is not there: %v", err)
	}
	var wrong int
	if err := c.Get(t.Context(), "/v1/nodes", &wrong); err == nil {
		t.Error("what is not understood is no error")
	}
	o.stop()
	if err := c.Get(t.Context(), "/v1/nodes", &nodes); !NoServer(err) {
		t.Errorf("without a server: %v", err)
	}
}

// TestSocket is about what lies where the socket is to be.
func TestSocket(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("d", 200))} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, SocketName)
			listen := func() net.Listener {
				t.Helper()
				ln, err := Listen(dir)
				if err != nil {
					t.Fatal(err)
				}
				return ln
			}
			defer syscall.Umask(syscall.Umask(0))
			ln := listen()
			if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Errorf("%v, %v; want a socket of mode 0600", info, err)
			}
			if other, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "another process") {
				t.Errorf("%v, %v; want one that answers left alone", other, err)
			}
			c, err := dialSocket(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			ln.(*socket).UnixListener.Close() // as by a crash: its file stays
			if _, err := dialSocket(t.Context(), path); !NoServer(err) {
				t.Errorf("what was left behind: %v", err)
			}
			ln = listen()
			ln.Close()
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it was not taken away: %v", err)
			}
			next := listen()
			defer next.Close()
			ln.Close() // a second time, when another one is there
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("closing twice takes away another one's: %v", err)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, SocketName), []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, "none")); err == nil {
		t.Error("a socket in a directory that is not there")
	}
}
