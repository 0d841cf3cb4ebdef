package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
)

// TestMetricsAreWellFormed holds names, labels and help texts to the rules of Prometheus.
func TestMetricsAreWellFormed(t *testing.T) {
	o := operate(t, []string{"pi", "x86"}, nil)
	o.promote(t, "pi", "v1", 1)
	o.mount(t, "10.0.0.7", "/pi")
	_, text := o.ask(t, "GET", "/metrics", "")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "rootnfsd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// metrics returns what is told, a line for each value.
func (o *operated) metrics(t *testing.T) []string {
	t.Helper()
	status, text := o.ask(t, "GET", "/metrics", "")
	if status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "rootnfsd_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestMetricsOfBootFiles(t *testing.T) {
	told := func(o *operated) (lines []string) {
		return slices.DeleteFunc(o.metrics(t), func(line string) bool { return !strings.HasPrefix(line, "rootnfsd_boot_") })
	}
	got := told(operate(t, []string{"pi"}, nil))
	want := []string{
		"rootnfsd_boot_file_bytes_total 6", "rootnfsd_boot_files_running 1",
		`rootnfsd_boot_files_total{result="aborted"} 3`, `rootnfsd_boot_files_total{result="failed"} 4`,
		`rootnfsd_boot_files_total{result="refused"} 5`, `rootnfsd_boot_files_total{result="sent"} 2`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	if got := told(operate(t, []string{"pi"}, func(c *Config, _ map[string]*treeStore) { c.Boot = nil })); len(got) > 0 {
		t.Errorf("without boot files: %q", got)
	}
}

// TestMetricsOfNodes compares what is told of nodes with who they are.
func TestMetricsOfNodes(t *testing.T) {
	o := operate(t, []string{"pi"}, func(c *Config, _ map[string]*treeStore) {
		c.Versions = func(string) ([]Version, error) { // v1 was removed, but for those that run it
			return []Version{{Name: "v2", Sealed: time.Unix(2000, 0)}, {Name: "v3", Damaged: true}}, nil
		}
	})
	o.promote(t, "pi", "v1", 1)
	for i := range 5 {
		o.mount(t, fmt.Sprintf("10.0.0.%d", i), "/pi")
	}
	o.promote(t, "pi", "v2", 2)
	for i := range 3 {
		o.mount(t, fmt.Sprintf("10.0.1.%d", i), "/pi")
	}
	o.mount(t, "10.0.1.0", "/pi") // the same one again
	want := []string{
		`rootnfsd_nodes{image="pi",state="booting",version="(removed)"} 5`,
		`rootnfsd_nodes{image="pi",state="booting",version="v2"} 3`,
		`rootnfsd_nodes{image="pi",state="new",version="(none)"} 0`,
		`rootnfsd_nodes{image="pi",state="silent",version="v2"} 0`,
		`rootnfsd_nodes{image="pi",state="up",version="v2"} 0`,
		`rootnfsd_nodes_reboot_needed{image="pi"} 5`,
		`rootnfsd_promoted{image="pi",version="v2"} 1`,
		`rootnfsd_versions{image="pi",state="damaged"} 1`,
		`rootnfsd_versions{image="pi",state="good"} 1`,
		`rootnfsd_last_seal_timestamp_seconds{image="pi"} 2000`,
		`rootnfsd_content_checked_bytes_total 4711`,
		`rootnfsd_content_damaged_chunks_total 1`,
	}
	got := o.metrics(t)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("there is no %s", line)
		}
	}
	for _, line := range got {
		if strings.HasPrefix(line, "rootnfsd_nodes{") && !slices.Contains(want, line) {
			t.Errorf("there is %s", line)
		}
	}
}

// TestMetricsOfRollout promotes a version for some nodes, watched and not.
func TestMetricsOfRollout(t *testing.T) {
	o := operate(t, []string{"pi"}, nil)
	o.promote(t, "pi", "v1", 1)
	for i := range 3 {
		o.mount(t, fmt.Sprintf("10.0.0.%d", i), "/pi")
	}
	told := func() string {
		var lines []string
		for _, line := range o.metrics(t) {
			if rest, ok := strings.CutPrefix(line, `rootnfsd_rollout_nodes{image="pi",state=`); ok {
				lines = append(lines, rest)
			}
		}
		return strings.Join(lines, ", ")
	}
	if got := told(); got != "" {
		t.Errorf("for all: %s; want nothing", got)
	}
	p := exports.Promotion{Ref: exports.Ref{Version: "v2", Digest: fs.Digest{7: 2}}, To: &exports.Partial{Nodes: []string{"10.0.0.0", "10.0.0.9"}}}
	for good, want := range map[time.Duration]string{
		0:         `"booted",version="v2"} 1, "promised",version="v2"} 2`,
		time.Hour: `"bad",version="v2"} 0, "booted",version="v2"} 1, "good",version="v2"} 0, "promised",version="v2"} 2, "unknown",version="v2"} 0`,
	} {
		p.Good = good
		if _, _, err := o.states["pi"].Promote(p, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		o.mount(t, "10.0.0.9", "/pi")
		if got := told(); got != want {
			t.Errorf("watched for %s: %s; want %s", good, got, want)
		}
		if _, _, err := o.states["pi"].Rollback("test", func(exports.Ref) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMetricsStayFew has a thousand nodes.
func TestMetricsStayFew(t *testing.T) {
	o := operate(t, []string{"pi"}, nil)
	o.promote(t, "pi", "v1", 1)
	o.mount(t, "10.0.0.1", "/pi")
	one := len(o.metrics(t))
	var boots sync.WaitGroup // at once, for a boot is written to disk
	for i := range 1000 {
		boots.Go(func() { o.mount(t, fmt.Sprintf("10.1.%d.%d", i/200, i%200), "/pi") })
	}
	boots.Wait()
	if all := len(o.metrics(t)); all != one {
		t.Errorf("%d metrics of a node, %d of a thousand", one, all)
	}
}

// TestRolloutEvents counts what is done to a history that forgets.
func TestSealsAreCounted(t *testing.T) {
	c := &collector{seals: map[string]sealCounts{}}
	version := func(name string, at int64) Version { return Version{Name: name, Sealed: time.Unix(at, 0)} }
	list := []Version{version("v1", 1000), version("v2", 2000)}
	check := func(when string, want uint64) {
		t.Helper()
		if got := c.countSeals("pi", list); got != want {
			t.Errorf("%s: %d; want %d", when, got, want)
		}
	}
	check("what was before", 0)
	list = append(list, version("v3", 3000), version("v4", 3001), Version{Name: "damaged"})
	check("two new ones", 2)
	check("nothing new", 2)
	list = append(list[1:], version("v1", 4000))
	check("one sealed again", 3)
	list = list[:1]
	check("removed", 3)
}

func TestRolloutEvents(t *testing.T) {
	var history []exports.Event
	at := time.Unix(1000, 0)
	add := func(action string, n int) {
		for range n {
			history = append(history, exports.Event{Time: at, Action: action})
			at = at.Add(time.Millisecond)
		}
	}
	add("promote", 7)
	c := &collector{events: map[string]*eventCounts{}, cfg: &Config{}}
	want := map[string]uint64{}
	for _, a := range actions {
		want[a] = 0
	}
	check := func(when string) {
		t.Helper()
		if got, _ := c.countEvents("pi", history); !maps.Equal(got, want) {
			t.Errorf("%s: %v; want %v", when, got, want)
		}
	}
	check("what was before the server began")
	check("nothing new")
	add("promote", 2)
	add("rollback", 1)
	want["promote"], want["rollback"] = 2, 1
	check("new events")
	history = history[8:]
	check("old ones are forgotten")
	add("unheard of", 3)
	want["other"] = 3
	check("one that is not known")
	history = nil
	check("the history is gone")
	add("pin", 4)
	want["pin"] = 4
	check("a new history")
	if _, since := c.countEvents("pi", history); !since.IsZero() {
		t.Errorf("promoted at %s; nothing is", since)
	}
}
