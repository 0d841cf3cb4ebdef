package exports

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func member(key string, labels ...string) Member { return Member{Key: key, Labels: labels} }

// gets is what a node gets by the rollout of a store.
func gets(t *testing.T, s *State, m Member) string {
	t.Helper()
	r, err := s.Rollout()
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := r.Promise(m)
	return ref.Version
}

func TestPromoteForSome(t *testing.T) {
	s := OpenState(t.TempDir())
	some := func(v string, to Partial) error {
		_, _, err := s.Promote(Promotion{Ref: ref(v), To: &to, By: "me"}, sure)
		return err
	}
	if err := some("v1", Partial{Nodes: []string{"a"}}); !errors.Is(err, ErrNothingForAll) {
		t.Errorf("before there is one for all: %v", err)
	}
	forAll := func(v string) {
		t.Helper()
		if _, _, err := s.Promote(Promotion{Ref: ref(v), By: "me"}, sure); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when, a, b, c string) {
		t.Helper()
		if got := fmt.Sprint(gets(t, s, member("a")), gets(t, s, member("b", "canary", "rack")), gets(t, s, member("c"))); got != a+b+c {
			t.Errorf("%s: %s; want %s%s%s", when, got, a, b, c)
		}
	}
	forAll("v1")
	want("for all", "v1", "v1", "v1")
	if err := some("v2", Partial{Nodes: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	want("for a", "v2", "v1", "v1")
	if err := some("v2", Partial{Labels: []string{"canary"}}); err != nil {
		t.Fatal(err)
	}
	want("and for canaries", "v2", "v2", "v1")
	if err := some("v2", Partial{Nodes: []string{"10.0.0.9"}}); err != nil {
		t.Fatal(err)
	}
	named := MemberOf(&Entry{Name: "d", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}, netip.Addr{})
	if got := gets(t, s, named); got != "v2" {
		t.Errorf("a node that was chosen by its address and then named gets %s", got)
	}
	if err := some("v3", Partial{Nodes: []string{"c"}}); err == nil || !strings.Contains(err.Error(), "v2 is promoted for some nodes (10.0.0.9,a and label canary)") {
		t.Errorf("another one: %v", err)
	}
	if err := some("v1", Partial{Nodes: []string{"c"}}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("what all get: %v", err)
	}
	if err := s.Remove(ref("v2"), "me", func() error { t.Error("removed"); return nil }); !errors.Is(err, ErrPromoted) {
		t.Errorf("removing it: %v", err)
	}
	if from, to, err := s.Rollback("me", all); err != nil || from.Version != "v2" || to.Version != "v1" {
		t.Errorf("taken back: %v, %v, %v", from, to, err)
	}
	want("taken back", "v1", "v1", "v1")
	if err := some("v2", Partial{Percent: 100}); err != nil {
		t.Fatal(err)
	}
	want("for 100 %", "v2", "v2", "v2")
	forAll("v2")
	r, _ := s.Rollout()
	if r.Partial != nil || len(r.Stack) != 2 {
		t.Errorf("promoted for all: %+v", r)
	}
	if _, to, err := s.Rollback("me", all); err != nil || to.Version != "v1" {
		t.Errorf("back from all: %v, %v", to, err)
	}
	if err := some("v2", Partial{Nodes: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	forAll("v1") // all means all
	want("for all again", "v1", "v1", "v1")
}

func TestShare(t *testing.T) {
	const nodes = 10_000
	chosen := map[float64]int{}
	for i := range nodes {
		key := fmt.Sprintf("pi-%d", i)
		small, large := Partial{Percent: 10}, Partial{Percent: 50}
		if small.Chooses(member(key)) {
			chosen[10]++
			if !large.Chooses(member(key)) {
				t.Errorf("%s is among 10 %% and not among 50 %%", key)
			}
		}
		if large.Chooses(member(key)) {
			chosen[50]++
		}
	}
	for percent, n := range chosen {
		if got := float64(n) / nodes * 100; got < percent*0.9 || got > percent*1.1 {
			t.Errorf("%g %% chose %g %%", percent, got)
		}
	}
	// The choice is the same with every version of this program.
	if got := fmt.Sprintf("%.4f", Share("pi-07")); got != "17.6387" {
		t.Errorf("pi-07 comes at %s", got)
	}
}

func TestPins(t *testing.T) {
	s := serve(t, "va", "vb")
	s.promote(t, "va")
	state := OpenState(s.stateDir)
	pin := ref("vb")
	var unknown *UnknownNode
	if err := state.Pin([]string{"pi"}, &pin, "me", anyVersion); !errors.As(err, &unknown) || unknown.Name != "pi" {
		t.Errorf("a node without a name: %v", err)
	}
	s.name(t, entry("pi", host), entry("other", "10.1.2.4"))
	if err := state.Pin([]string{"pi"}, &pin, "me", func(Ref) error { return errors.New("gone") }); err == nil {
		t.Error("pinned to what is not there")
	}
	if err := state.Pin([]string{"pi"}, &pin, "me", anyVersion); err != nil {
		t.Fatal(err)
	}
	want := func(when, pi, other string) {
		t.Helper()
		got, err := s.content(t, "/")
		s.peer = s.Peer(netip.MustParseAddrPort("10.1.2.4:700"))
		got2, err2 := s.content(t, "/")
		s.peer = s.Peer(netip.MustParseAddrPort(host + ":700"))
		if err != nil || err2 != nil || got != pi || got2 != other {
			t.Errorf("%s: %q, %v, and %q, %v; want %s and %s", when, got, err, got2, err2, pi, other)
		}
	}
	want("pinned", "b", "a")
	if err := state.Remove(pin, "me", func() error { t.Error("removed"); return nil }); !errors.Is(err, ErrPinned) {
		t.Errorf("removing it: %v", err)
	}
	if err := state.Pin([]string{"pi"}, nil, "me", anyVersion); err != nil {
		t.Fatal(err)
	}
	want("unpinned", "a", "a")
	if _, _, err := state.Promote(Promotion{Ref: pin, To: &Partial{Nodes: []string{"other"}}, By: "me"}, sure); err != nil {
		t.Fatal(err)
	}
	want("promoted for the other", "a", "b")
	if err := s.mountGone(t, "vb"); err == nil || !strings.Contains(err.Error(), "promised vb, which is gone") {
		t.Errorf("mounting what is gone: %v", err)
	}
	r, _ := state.Rollout()
	var did []string
	for _, e := range r.History {
		did = append(did, fmt.Sprint(e.Action, " ", e.Version, " ", e.Nodes))
	}
	if got, want := strings.Join(did, ", "), "promote va , pin vb pi, unpin vb pi, promote vb other"; got != want {
		t.Errorf("history: %s; want %s", got, want)
	}
}

// mountGone mounts as the other node after a version was removed by hand.
func (s *served) mountGone(t *testing.T, version string) error {
	t.Helper()
	s.store.remove(version)
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Mount(s.Peer(netip.MustParseAddrPort("10.1.2.4:700")), "/", Caller{})
	return err
}

// watched is a fleet in which pi-1 and pi-2 are promised v2, which is watched.
type watched struct {
	t     *testing.T
	watch Watch
	since time.Time
	began time.Time // of the server
	nodes map[string]*NodeStatus
}

func newWatched(t *testing.T, maxBad int) *watched {
	since := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	w := &watched{t, Watch{Ref: ref("v2"), Since: since, Good: 5 * time.Minute, MaxBad: maxBad}, since, since.Add(-time.Hour), map[string]*NodeStatus{}}
	for _, name := range []string{"pi-1", "pi-2"} {
		w.nodes[name] = &NodeStatus{Name: name, State: StateUp, promise: ref("v2"), booted: &Use{Ref: ref("v1"), Mounted: since.Add(-time.Hour)}}
	}
	w.nodes["pi-3"] = &NodeStatus{Name: "pi-3", State: StateUp, promise: ref("v1"), booted: &Use{Ref: ref("v1")}}
	return w
}

func (w *watched) at(after time.Duration) (complete bool) {
	var fleet []NodeStatus
	for _, n := range w.nodes {
		fleet = append(fleet, *n)
	}
	_, complete = w.watch.judge(fleet, w.began, w.since.Add(after))
	return complete
}

// boot has a node boot v2.
func (w *watched) boot(name string, after time.Duration) {
	n := w.nodes[name]
	n.State, n.booted = StateBooting, &Use{Ref: ref("v2"), Mounted: w.since.Add(after), Began: w.since.Add(after)}
	n.Boots++
}

func (w *watched) want(when string, booted, good, bad int) {
	w.t.Helper()
	b, g, x := w.watch.Tally()
	if b != booted || g != good || x != bad {
		w.t.Errorf("%s: %d booted, %d good, %d bad; want %d, %d, %d: %+v", when, b, g, x, booted, good, bad, w.watch.Nodes)
	}
}

func TestWatch(t *testing.T) {
	w := newWatched(t, 0)
	if w.at(time.Second) {
		t.Error("complete before anybody booted")
	}
	w.boot("pi-1", 10*time.Second)
	if w.at(20 * time.Second) {
		t.Error("complete with one of two")
	}
	w.want("one booted", 1, 0, 0)
	w.boot("pi-2", 30*time.Second)
	w.nodes["pi-1"].State = StateUp
	w.at(2 * time.Minute)
	w.want("one is up", 2, 1, 0)
	w.nodes["pi-2"].State = StateUp
	if w.at(3 * time.Minute) {
		t.Error("complete before the time is over")
	}
	w.want("both are up", 2, 2, 0)
	if !w.at(6 * time.Minute) {
		t.Error("not complete when the time is over")
	}
}

func TestWatchSeesFailures(t *testing.T) {
	w := newWatched(t, 1)
	w.boot("pi-1", 10*time.Second)
	w.at(11 * time.Second)
	w.boot("pi-1", 60*time.Second) // again
	w.boot("pi-2", 60*time.Second)
	w.at(61 * time.Second)
	w.want("one booted again", 2, 0, 1)
	w.nodes["pi-1"].State = StateUp
	w.at(200 * time.Second)
	w.want("it came up then", 2, 0, 1)
	if !w.at(10 * time.Minute) {
		t.Error("not complete when the time is over")
	}
	w.want("the other was never up", 2, 0, 2)
	if v := w.watch.verdict(); !strings.Contains(v, "pi-1: it booted again after 51s; pi-2: it was not up after 5m0s") {
		t.Errorf("verdict: %s", v)
	}
}

// TestWatchAsksWhoSpeaks holds a node to what it said itself once.
func TestWatchAsksWhoSpeaks(t *testing.T) {
	w := newWatched(t, 0)
	for _, name := range []string{"pi-1", "pi-2"} {
		w.boot(name, 0)
		w.nodes[name].State, w.nodes[name].Good = StateUp, w.since.Add(-time.Hour)
	}
	w.nodes["pi-2"].Good = w.since.Add(time.Minute)
	w.at(2 * time.Minute)
	w.want("one said so", 2, 1, 0)
	w.at(6 * time.Minute)
	w.want("the other did not", 2, 1, 1)
}

// TestRolloutIsTakenBack lets the exports decide.
func TestRolloutIsTakenBack(t *testing.T) {
	s := serve(t, "va", "vb")
	s.promote(t, "va")
	s.name(t, entry("pi", host))
	state := OpenState(s.stateDir)
	if _, _, err := state.Promote(Promotion{Ref: ref("vb"), To: &Partial{Nodes: []string{"pi"}}, By: "me", Good: time.Hour}, sure); err != nil {
		t.Fatal(err)
	}
	boot := func(want string) {
		t.Helper()
		h, err := s.Mount(s.peer, "/", Caller{Booting: true})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.read(t, h); got != want || err != nil {
			t.Fatalf("booted %s, %v; want %s", got, err, want)
		}
	}
	s.clock(2) // seconds: a boot before the promotion does not count
	boot("b")
	s.watchRollouts(time.Unix(s.nodes.now.Load(), 0))
	s.clock(retryTime)
	boot("b")
	s.watchRollouts(time.Unix(s.nodes.now.Load(), 0))
	r, err := state.Rollout()
	if err != nil || r.Partial != nil || r.Watch != nil {
		t.Fatalf("%+v, %v; want it taken back", r, err)
	}
	last := r.History[len(r.History)-1]
	if last.Action != "rollback" || last.By != "rootnfsd serve" || !strings.Contains(last.Note, "pi: it booted again after 10s") {
		t.Errorf("history: %+v", last)
	}
	s.clock(retryTime)
	boot("a")
}

// clock moves the time of the exports on.
func (s *served) clock(seconds int64) { s.nodes.now.Add(seconds) }

// TestWatchWaitsForNobodyElse leaves alone nodes that run the version already, and those that are not promised
// it any more.
func TestWatchWaitsForNobodyElse(t *testing.T) {
	w := newWatched(t, 0)
	w.nodes["pi-1"].booted = &Use{Ref: ref("v2"), Mounted: w.since.Add(-time.Hour)}
	w.boot("pi-2", 10*time.Second)
	w.nodes["pi-2"].State = StateUp
	if !w.at(6 * time.Minute) {
		t.Error("a node that runs it already is waited for")
	}
	w.want("one ran it already", 1, 1, 0)
	w.nodes["pi-2"].promise = ref("v1")
	w.at(6 * time.Minute)
	w.want("the other is pinned elsewhere", 0, 0, 0)
	w.nodes["pi-1"].promise = ref("v1")
	if w.at(6 * time.Minute) {
		t.Error("complete, though nobody is to get it")
	}
}

// TestWatchKnowsItsLimits judges nobody of whom nothing can be seen.
func TestWatchKnowsItsLimits(t *testing.T) {
	w := newWatched(t, 0)
	delete(w.nodes, "pi-2")
	w.boot("pi-1", 0)
	w.at(time.Minute)
	w.nodes["pi-1"].LastCall = w.since.Add(80 * time.Second)
	w.began = w.since.Add(6 * time.Minute) // the server was down
	if w.at(6*time.Minute + time.Second) {
		t.Error("judged by a server that has just begun")
	}
	w.want("the server has just begun", 1, 0, 0)
	if !w.at(9 * time.Minute) {
		t.Error("not judged at last")
	}
	w.want("it is silent and always was", 1, 0, 0)
	if v := w.watch.verdict(); !strings.Contains(v, "pi-1: it has been silent since 1m20s after its boot") {
		t.Errorf("verdict: %s", v)
	}
	w = newWatched(t, 0)
	w.boot("pi-1", 0)
	w.nodes["pi-1"].speaks, w.nodes["pi-1"].LastCall = true, w.since.Add(80*time.Second)
	w.at(6 * time.Minute)
	w.want("it mounted its home each time before", 1, 0, 1)
}

// TestWatchSeesWhoIsStuck: a node that fetches its boot files and never mounts its root is bad.
func TestWatchSeesWhoIsStuck(t *testing.T) {
	w := newWatched(t, 1)
	loop := func(since, at time.Duration, version string) *Netboot { // as it does that boots over and over
		return &Netboot{Ref: ref(version), Since: w.since.Add(since), At: w.since.Add(at)}
	}
	w.nodes["pi-1"].Netboot, w.nodes["pi-2"].Netboot = loop(time.Minute, time.Minute, "v2"), loop(time.Minute, time.Minute, "v1")
	w.at(5 * time.Minute)
	w.want("it may still mount it", 0, 0, 0)
	w.nodes["pi-1"].Netboot = loop(time.Minute, 6*time.Minute, "v2")
	w.at(6 * time.Minute)
	w.want("it has not mounted it", 1, 0, 1)
	w.boot("pi-1", 7*time.Minute)
	w.at(7 * time.Minute)
	w.want("it did at last", 1, 0, 1)
}

// TestWatchIsWidened promotes for more nodes while some are watched.
func TestWatchIsWidened(t *testing.T) {
	s := OpenState(t.TempDir())
	for _, p := range []Promotion{{Ref: ref("v1")}, {Ref: ref("v2"), To: &Partial{Nodes: []string{"a"}}, Good: time.Minute}} {
		if _, _, err := s.Promote(p, sure); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]Trial{"a": {Booted: noon, Bad: "it burns"}}
	if err := s.update(func(r *Rollout) (bool, error) { r.Watch.Nodes = seen; r.Watch.Since = noon; return true, nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Promote(Promotion{Ref: ref("v2"), To: &Partial{Nodes: []string{"b"}}, Good: time.Hour, MaxBad: 3}, sure); err != nil {
		t.Fatal(err)
	}
	r, err := s.Rollout()
	if err != nil || r.Watch == nil || r.Watch.Nodes["a"] != seen["a"] || !r.Watch.Since.Equal(noon) || r.Watch.Good != time.Hour || r.Watch.MaxBad != 3 {
		t.Errorf("%+v, %v", r.Watch, err)
	}
}
