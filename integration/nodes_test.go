package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// nodeRow is a node in the output of nodes --json.
type nodeRow struct {
	Name, Address, Running, Promised, Why, State string
	Labels                                       []string
	RebootNeeded                                 bool `json:"reboot_needed"`
	Calls, Boots                                 int
	Digest                                       string
}

// TestNodeCommands names nodes, and promotes and pins versions for some of them.
func TestNodeCommands(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree, "v2": {"etc/hostname": "golden\n"}, "v3": {"etc/hostname": "third\n"}})
	at := "--export=" + store
	promise := func(when, want string) {
		t.Helper()
		var got []string
		for _, n := range cliJSON[[]nodeRow](t, "nodes", at) {
			got = append(got, n.Name+"="+n.Promised)
			if n.State != "new" || n.Running != "" {
				t.Errorf("%s: %+v: it never booted", when, n)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s; want %s", when, s, want)
		}
	}
	cli(t, "seal", at)
	cli(t, "node", "set", "pi-[01-03]", "--label", "rack1", at)
	cli(t, "node", "set", "pi-01", at, "--address", "192.0.2.1", "--label", "canary", "--mac", "02-00-00-00-00-01")
	promise("nothing is promoted", "pi-01= pi-02= pi-03=")
	expectFailure(t, []string{"promote", "v2", "--force", "--label", "canary", at}, "for all")
	cli(t, "promote", "v1", "--force", at)
	promise("for all", "pi-01=v1 pi-02=v1 pi-03=v1")

	expectFailure(t, []string{"promote", "v2", "--label", "canari", at}, "no label canari", "did you mean canary")
	expectFailure(t, []string{"promote", "v2", "--nodes", "pi-[01-04]", at}, "no node pi-04", "did you mean")
	expectFailure(t, []string{"promote", "v2", "--nodes", "pi-[01", at}, "pi-[01", "without its ']'")
	expectFailure(t, []string{"promote", "v2", "--percent", "101", at}, "percent", "100")
	expectFailure(t, []string{"promote", "v2", "--wait-good", "5m", at}, "none serves this store")
	expectFailure(t, []string{"promote", "v2", "--max-bad", "1", at}, "--wait-good")

	if out := cli(t, "promote", "v2", "--force", "--label", "canary", "--dry-run", at); !strings.Contains(out, "1 known node will get another version than now (pi-01)") {
		t.Errorf("a dry run: %s", out)
	}
	promise("a dry run", "pi-01=v1 pi-02=v1 pi-03=v1")
	cli(t, "promote", "v2", "--force", "--label", "canary", at)
	promise("for canaries", "pi-01=v2 pi-02=v1 pi-03=v1")
	if out := cli(t, "status", at); !strings.Contains(out, "promoted for label canary: v2 ") {
		t.Errorf("status: %s", out)
	}
	if n := cliJSON[[]nodeRow](t, "nodes", "--label", "canary", at); len(n) != 1 || n[0].Name != "pi-01" {
		t.Errorf("nodes with a label: %+v", n)
	}
	expectFailure(t, []string{"promote", "v3", "--force", "--nodes", "pi-03", at}, "v2 is promoted for some nodes", "rootnfsd rollback")
	if r := finish(t, exec.Command(rootnfsd, "promote", "v2", "--force", "--nodes", "pi-03", at)); r.status != 0 || !strings.Contains(r.stderr, "1 known node will get another version than now (pi-03)") {
		t.Errorf("a promote does not say what it changes: %s%s", r.stdout, r.stderr)
	}
	promise("wider", "pi-01=v2 pi-02=v1 pi-03=v2")
	watchNodes(t, at)
	expectFailure(t, []string{"remove", "v2", at}, "promoted for pi-03 and label canary", "rootnfsd rollback")
	if out := cli(t, "promote", "v1", "--force", "--dry-run", at); !strings.Contains(out, "v2 is taken back from pi-03 and label canary") {
		t.Errorf("promoting for all what they get: %s", out)
	}
	if out := cli(t, "rollback", at); !strings.Contains(out, "v2 is taken back from pi-03 and label canary; all get v1") {
		t.Errorf("rollback: %s", out)
	}
	promise("taken back", "pi-01=v1 pi-02=v1 pi-03=v1")

	cli(t, "pin", "pi-[02-03]", "v3", at)
	promise("pinned", "pi-01=v1 pi-02=v3 pi-03=v3")
	expectFailure(t, []string{"remove", "v3", at}, "pinned to it: pi-[02-03]", "unpin pi-[02-03]")
	if out := cli(t, "gc", "--keep", "1", "--dry-run", at); !strings.Contains(out, "pi-02, pi-03 pinned to it") {
		t.Errorf("gc does not say what holds v3: %s", out)
	}
	cli(t, "unpin", "pi-03", at)
	promise("one unpinned", "pi-01=v1 pi-02=v3 pi-03=v1")
	expectFailure(t, []string{"pin", "192.0.2.9", "v1", at}, "node set NAME --address 192.0.2.9")
	expectFailure(t, []string{"pin", "192.0.2.1", "v1", at}, "the address of node pi-01")
	expectFailure(t, []string{"node", "set", "pi-03", "--address", "192.0.2.1", "--pin", "v2", at}, "node pi-03: the address 192.0.2.1 is that of node pi-01")
	expectFailure(t, []string{"node", "set", "pi-[01-03]", "--no-label", "rack2", at}, "no label rack2", "rack1")
	promise("what was refused", "pi-01=v1 pi-02=v3 pi-03=v1")
	cli(t, "node", "set", "pi-02", "--pin", "", "--no-label", "rack1", at)
	if n := cliJSON[[]nodeRow](t, "node", "show", "pi-02", at); len(n) != 1 || n[0].Promised != "v1" || len(n[0].Labels) != 0 {
		t.Errorf("pi-02: %+v", n)
	}

	var did []string
	for _, e := range cliJSON[[]struct{ Action, Version, Nodes string }](t, "history", at) {
		did = append(did, strings.Trim(e.Action+" "+e.Version+" "+e.Nodes, " "))
	}
	if got, want := strings.Join(did, ", "), "promote v1, promote v2 label canary, promote v2 pi-03, rollback v2 pi-03 and label canary, pin v3 pi-[02-03], unpin v3 pi-03, unpin v3 pi-02"; got != want {
		t.Errorf("history: %s; want %s", got, want)
	}
	for _, args := range [][]string{{"node", "list"}, {"node", "show", "pi-01"}, {"history"}, {"nodes", "--sort", "seen"}, {"nodes", "pi-[01-02]", "--state", "new"}} {
		if out := cli(t, append(args, at)...); !strings.Contains(out, "pi-0") {
			t.Errorf("%v: %s", args, out)
		}
	}
	cli(t, "node", "remove", "pi-[01-03]", at)
	promise("none has a name", "")
}

// watchNodes looks at the nodes until they have been shown twice.
func watchNodes(t *testing.T, at string) {
	t.Helper()
	cmd := exec.Command(rootnfsd, "nodes", "--watch", at)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	shown, pages := "", 0
	for lines := bufio.NewScanner(out); pages < 2 && lines.Scan(); {
		shown += lines.Text() + "\n"
		pages = strings.Count(shown, "pi-03")
	}
	if pages < 2 || !strings.Contains(shown, "3 nodes, 3 new") {
		t.Errorf("nodes --watch shows %q", shown)
	}
	go io.Copy(io.Discard, out)
	if err := errors.Join(cmd.Process.Signal(syscall.SIGINT), cmd.Wait()); err != nil {
		t.Errorf("nodes --watch, interrupted: %v", err)
	}
}

// TestTenThousandNodes names as many nodes as a file has, and promotes for some of them.
func TestTenThousandNodes(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree, "v2": {"etc/hostname": "golden\n"}})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "promote", "v1", "--force", at)
	csv := "name,address,mac,serial,labels\n"
	for i := range 10_000 {
		csv += fmt.Sprintf("pi-%05d,10.1.%d.%d,02:00:00:00:%02x:%02x,%08x,rack%d\n", i, i>>8, i&255, i>>8, i&255, i, i%40)
	}
	path := filepath.Join(t.TempDir(), "nodes.csv")
	write(t, path, csv)
	cli(t, "node", "import", path, at)
	cli(t, "promote", "v2", "--force", "--label", "rack7", at)
	count := map[string]int{}
	for _, n := range cliJSON[[]nodeRow](t, "nodes", at) {
		count[n.Promised]++
	}
	if count["v1"] != 9750 || count["v2"] != 250 {
		t.Errorf("promised: %v; want 250 of 10,000 with v2", count)
	}
	cli(t, "node", "set", "pi-[00000-09999]", "--label", "all", at)
	expectFailure(t, []string{"node", "set", "pi-10000", "--serial", "0000270f", at}, "the serial number 0000270f is that of node pi-09999")
	if n := cliJSON[[]struct{ Labels []string }](t, "node", "show", "pi-09999", at); len(n) != 1 || strings.Join(n[0].Labels, " ") != "all rack39" {
		t.Errorf("the last one: %+v", n)
	}
}

// TestSecondAddress names a node by each of its addresses.
func TestSecondAddress(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree, "v2": {"etc/hostname": "golden\n"}})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "promote", "v1", "--force", at)
	cli(t, "node", "set", "pi-01", "--address", "192.0.2.1,192.0.2.2", "--pin", "v2", at)
	for _, key := range []string{"pi-01", "192.0.2.1", "192.0.2.2"} {
		for _, args := range [][]string{{"node", "show", key}, {"nodes", key}} {
			if n := cliJSON[[]nodeRow](t, append(args, at)...); len(n) != 1 || n[0].Name != "pi-01" {
				t.Errorf("%v: %+v", args, n)
			}
		}
	}
	type changed struct {
		Before, Promoted, For string
		TakenBack             string `json:"taken_back"`
	}
	if got, want := cliJSON[changed](t, "promote", "v2", "--force", "--nodes", "192.0.2.2", at), (changed{"v1", "v2", "pi-01", ""}); got != want {
		t.Errorf("promoted for a second address: %+v; want %+v", got, want)
	}
	if got, want := cliJSON[changed](t, "promote", "v1", "--force", at), (changed{"v1", "v1", "", "v2"}); got != want {
		t.Errorf("promoted for all: %+v; want %+v", got, want)
	}
	cli(t, "promote", "v2", "--force", "--nodes", "pi-01", at)
	if got, want := cliJSON[changed](t, "rollback", at), (changed{"v2", "v1", "pi-01", ""}); got != want {
		t.Errorf("rollback: %+v; want %+v", got, want)
	}
	cli(t, "node", "remove", "pi-01", at)
	var did []string
	for _, e := range cliJSON[[]struct{ Action, Version, Nodes string }](t, "history", at) {
		if strings.HasSuffix(e.Action, "pin") {
			did = append(did, e.Action+" "+e.Version+" "+e.Nodes)
		}
	}
	if got, want := strings.Join(did, ", "), "pin v2 pi-01, unpin v2 pi-01"; got != want {
		t.Errorf("history: %s; want %s", got, want)
	}
}

// TestNodeImport takes nodes from CSV files, good ones and bad ones.
func TestNodeImport(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree})
	at := "--export=" + store
	cli(t, "seal", at)
	cli(t, "node", "set", "pi-01", "--hostname", "kept", "--label", "old", at)
	csv := filepath.Join(t.TempDir(), "nodes.csv")
	write(t, csv, "\ufeffName, address, labels, pin\r\npi-01,192.0.2.1,canary rack1,v1\r\n\"pi-02\",\"192.0.2.2 2001:db8::2\",,\r\n# a comment\r\n")
	if out := cli(t, "node", "import", csv, "--dry-run", at); !strings.Contains(out, "1 node added, 1 changed") {
		t.Errorf("a dry run: %s", out)
	}
	if n := len(cliJSON[[]any](t, "node", "list", at)); n != 1 {
		t.Errorf("a dry run left %d nodes", n)
	}
	cli(t, "node", "import", csv, at)
	type entry struct {
		Name, Hostname    string
		Addresses, Labels []string
		Pin               struct{ Version string }
	}
	list := cliJSON[[]entry](t, "node", "list", at)
	if len(list) != 2 || list[0].Hostname != "kept" || strings.Join(list[0].Labels, " ") != "canary rack1" || list[0].Pin.Version != "v1" || strings.Join(list[1].Addresses, " ") != "192.0.2.2 2001:db8::2" {
		t.Errorf("%+v", list)
	}
	before, err := os.ReadFile(filepath.Join(store, ".rootnfsd/inventory.json"))
	if err != nil {
		t.Fatal(err)
	}
	for content, words := range map[string][]string{
		"":                                  {"is empty"},
		"name,addres\n":                     {"line 1", "addres", "labels"},
		"address\n192.0.2.3\n":              {"line 1", "no column name"},
		"name,name\n":                       {"line 1", "twice"},
		"name,mac\npi-03\n":                 {"line 2", "wrong number of fields"},
		"name\npi-03\n\"pi":                 {"line 3"},
		"name\npi-03\npi-04\npi-03\n":       {"line 4", "pi-03 is in line 2"},
		"name,address\npi-03,192.0.2.300\n": {"line 2", "192.0.2.300"},
		"name,address\npi-03,\npi-04,192.0.2.1\n":          {"line 3", "pi-04", "that of node pi-01"},
		"name,address\na-1,192.0.2.1\n":                    {"line 2", "node a-1:", "that of node pi-01"},
		"name,address\npi-04,192.0.2.4\npi-03,192.0.2.4\n": {"line 3", "node pi-03:", "that of node pi-04, in line 2"},
		"name,mac\npi-03,02:00\n":                          {"line 2", "MAC"},
		"name,pin\npi-03,v9\n":                             {"line 2", "no version v9"},
		"name\n../etc\n":                                   {"line 2", "no name for a node"},
	} {
		write(t, csv, content)
		expectFailure(t, []string{"node", "import", csv, at}, words...)
	}
	if after, err := os.ReadFile(filepath.Join(store, ".rootnfsd/inventory.json")); err != nil || string(after) != string(before) {
		t.Errorf("what was refused changed the inventory: %v", err)
	}
	expectFailure(t, []string{"node", "import", csv + "x", at}, "no such file")
}

// TestWatchedRollout promotes for a canary that comes up, and for one that does not.
func TestWatchedRollout(t *testing.T) {
	f := &fleet{t: t, store: newStore(t, map[string]files{"v1": {"etc/issue": "v1"}, "v2": {"etc/issue": "v2"}, "v3": {"etc/issue": "v3"}})}
	f.at = "--export=" + f.store
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	n := &fleetNode{address: netip.MustParseAddr("127.1.0.1"), name: "pi-1"}
	cli(t, "node", "set", n.name, "--address", n.address.String(), "--label", "canary", f.at)
	f.nodes = []*fleetNode{n}
	f.start("--home", t.TempDir(), "--home-ports", "any")
	boots := func(version string) {
		t.Helper()
		if got, err := f.bootOne(n); err != nil || got != version {
			t.Fatalf("it booted %s, %v; want %s", got, err, version)
		}
	}
	// follow promotes a version for the canary and follows it while do is done.
	follow := func(version string, do func(), more ...string) result {
		t.Helper()
		done := make(chan result)
		go func() {
			args := append([]string{"promote", version, "--force", "--label", "canary", f.at, "--wait-good"}, more...)
			done <- finish(t, exec.Command(rootnfsd, args...))
		}()
		for {
			nodes := cliJSON[[]nodeRow](t, "nodes", f.at)
			if nodes[0].Promised == version {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		do()
		return <-done
	}
	boots("v1")
	time.Sleep(time.Second) // times are kept in seconds
	r := follow("v2", func() {
		boots("v2")
		if _, err := rpc.Mount(f.addr, "/home", rpc.Options{Local: n.address}); err != nil { // as it does when it is up
			t.Fatal(err)
		}
	}, "2s")
	if r.status != 0 || !strings.Contains(r.stdout, "v2 is good: 1 booted it, 1 good, 0 bad") {
		t.Errorf("a canary that is up: status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	cli(t, "promote", "v2", "--force", f.at)
	time.Sleep(time.Second)
	var told struct{ Before, Promoted, For, Outcome, Note string }
	r = follow("v3", func() { boots("v3") }, "2s", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &told); err != nil {
		t.Errorf("%v; want one document:\n%s", err, r.stdout)
	}
	if r.status != 1 || told.Outcome != "taken back" || told.Promoted != "v3" || told.For != "label canary" || !strings.Contains(told.Note, "pi-1: it was not up after 2s") {
		t.Errorf("a canary that does not come up: status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	boots("v2")
	type event struct{ Action, Version, By, Note string }
	events := cliJSON[[]event](t, "history", f.at)
	for flag, want := range map[string]int{"--reboot-needed": 0, "--version=v2": 1, "--version=v1": 0} {
		if n := cliJSON[[]nodeRow](t, "nodes", flag, f.at); len(n) != want {
			t.Errorf("nodes %s: %+v; want %d", flag, n, want)
		}
	}
	if last := events[len(events)-1]; last.Action != "rollback" || last.By != "rootnfsd serve" || !strings.Contains(last.Note, "pi-1") {
		t.Errorf("history: %+v", last)
	}

	interrupted := exec.Command(rootnfsd, "promote", "v3", "--force", "--label", "canary", "--wait-good", "1h", "--json", f.at)
	var stdout bytes.Buffer
	interrupted.Stdout = &stdout
	if err := interrupted.Start(); err != nil {
		t.Fatal(err)
	}
	for cliJSON[[]nodeRow](t, "nodes", f.at)[0].Promised != "v3" {
		time.Sleep(50 * time.Millisecond)
	}
	if n := cliJSON[[]nodeRow](t, "nodes", "--reboot-needed", f.at); len(n) != 1 || n[0].Running != "v2" {
		t.Errorf("nodes --reboot-needed: %+v; want pi-1 that runs v2", n)
	}
	if err := interrupted.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	interrupted.Wait()
	if err := json.Unmarshal(stdout.Bytes(), &told); err != nil || interrupted.ProcessState.ExitCode() != 2 || told.Outcome != "undecided" {
		t.Errorf("interrupted: %s, %v\n%s", interrupted.ProcessState, err, &stdout)
	}
}
