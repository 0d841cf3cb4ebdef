package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// TestOperators asks a server about a node that mounts, over TCP and by its socket: as a node, as a
// crowd that sends nothing, and when it was killed.
func TestOperators(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree})
	f := &fleet{t: t, store: store, at: "--export=" + store}
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	o := operator{url: "http://" + freeAddr(t)}
	flags := []string{"--admin", o.url[len("http://"):]}
	f.start(flags...)

	const node, calls = "127.0.0.7", 100
	conn, root := mountFrom(t, f.addr, node)
	for range calls {
		if r, err := conn.Do(1, conn.AppendGetattr(nil, 1, root)); err != nil || !r.OK() {
			t.Fatal(err, r.Err())
		}
	}
	o.wantNode(t, f, node, "booting", calls)

	if status, body := o.ask(t, "127.0.0.8", http.MethodPost, "/v1/good"); status != http.StatusNotFound {
		t.Errorf("a node that mounted nothing is good: %d %s", status, body)
	}
	if status, body := o.ask(t, node, http.MethodPost, "/v1/good"); status != http.StatusOK {
		t.Errorf("good: %d %s", status, body)
	}
	o.wantNode(t, f, node, "up", calls)

	// That it is asked must not cost the server its lock.
	for range 2 {
		_, body := o.ask(t, node, http.MethodGet, "/v1/status")
		o.wantPID(t, "over TCP", body, f.serve.Process.Pid)
		o.wantPID(t, "by a command", cli(t, "status", "--json", f.at), f.serve.Process.Pid)
	}
	if status, body := o.ask(t, node, http.MethodGet, "/readyz"); status != http.StatusOK {
		t.Errorf("it is not ready: %d %s", status, body)
	}

	for range 200 {
		c, err := net.Dial("tcp", o.url[len("http://"):])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\n") // and no more
	}
	if r, err := conn.Do(2, conn.AppendGetattr(nil, 2, root)); err != nil || !r.OK() {
		t.Errorf("with a crowd at its other door NFS fails: %v", err)
	}
	o.wantNode(t, f, node, "up", calls+1)

	f.kill()
	socket := filepath.Join(store, ".rootnfsd", "control.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v; want what a killed server leaves behind, a socket of mode 0600", info, err)
	}
	o.wantNode(t, f, node, "", 0) // as it is on the disk
	f.start(flags...)
	conn, root = mountFrom(t, f.addr, node)
	if r, err := conn.Do(3, conn.AppendGetattr(nil, 3, root)); err != nil || !r.OK() {
		t.Fatal(err)
	}
	o.wantPID(t, "started again", cli(t, "status", "--json", f.at), f.serve.Process.Pid)
	o.wantNode(t, f, node, "", 1)
	f.stop()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("a server that was stopped leaves its socket behind: %v", err)
	}
}

// mountFrom mounts the image from an address.
func mountFrom(t *testing.T, server, node string) (*rpc.Conn, []byte) {
	t.Helper()
	conn, err := rpc.Dial(server, rpc.Options{Local: netip.MustParseAddr(node), Reserved: true}) // a boot, which is saved at once
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	root, err := conn.Mount("/images")
	if err != nil {
		t.Fatal(err)
	}
	return conn, root
}

// operator asks a server over TCP.
type operator struct{ url string }

// ask makes a request from an address.
func (o operator) ask(t *testing.T, from, method, path string) (status int, body string) {
	t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext,
	}}
	request, err := http.NewRequest(method, o.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// wantNode fails unless nodes, as a command prints them, has that node alone, in that state if one is given, with so many
// calls at least.
func (o operator) wantNode(t *testing.T, f *fleet, address, state string, calls int) {
	t.Helper()
	rows := cliJSON[[]nodeRow](t, "nodes", f.at)
	if len(rows) != 1 || rows[0].Address != address || rows[0].Running != "v1" || state != "" && rows[0].State != state || rows[0].Calls < calls {
		t.Errorf("the nodes are %+v; want %s, %s, with %d calls", rows, address, state, calls)
	}
}

// wantPID fails unless that is who serves, as status has it.
func (operator) wantPID(t *testing.T, how, status string, pid int) {
	t.Helper()
	var rows []struct {
		ServedBy int `json:"served_by_pid"`
	}
	if err := json.Unmarshal([]byte(status), &rows); err != nil || len(rows) != 1 || rows[0].ServedBy != pid {
		t.Errorf("%s: %v, %v; want it served by %s", how, rows, err, fmt.Sprint(pid))
	}
}

// freeAddr is an address on loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := peer.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
