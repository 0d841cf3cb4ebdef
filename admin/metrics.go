package admin

import (
	"cmp"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/nfs"
)

// The metrics. Their names and labels are what dashboards rely on (docs/grafana.json). No label has a value for each
// node, and none grows with time: versions are those that there are.
var (
	callDuration = metric("call_duration_seconds", "How long calls took from arrival until the reply was sent.", "program", "procedure", "tree")
	rpcErrors    = metric("rpc_errors_total", "Calls that were answered with an error of RPC.", "error")
	wrongVersion = metric("wrong_version_calls_total", "Calls of versions of NFS other than 3, which clients try first that mount without vers=3.", "version")
	mounts       = metric("mounts_total", "Mounts by their status.", "result")
	waitedCalls  = metric("waited_calls_total", "Calls about versions that waited for a disk or for content to be checked.")
	received     = metric("received_bytes_total", "Bytes that came from clients.")
	sent         = metric("sent_bytes_total", "Bytes that went to clients.")
	conns        = metric("connections", "Open connections, by whether their addresses may mount.", "allowed")
	accepted     = metric("connections_accepted_total", "Connections that began.")
	evicted      = metric("connections_evicted_total", "Idle connections that were closed to make room for others.")
	diskReads    = metric("disk_reads", "Calls that read a disk now.")
	pending      = metric("pending_bytes", "Memory of what is in hand: replies that wait for a disk or a client, calls about homes, large calls that are arriving.", "of")
	panics       = metric("panics_total", "Calls that failed by a fault of rootnfsd.")

	checkedBytes  = metric("content_checked_bytes_total", "Content that was read for the first time and compared with its digest.")
	damagedChunks = metric("content_damaged_chunks_total", "Pieces of content that did not have their digest.")
	warmedBytes   = metric("content_warmed_bytes_total", "Content that was brought into memory before nodes asked for it.")

	nodes         = metric("nodes", "Nodes by what they run and how far they are.", "image", "version", "state")
	rebootNeeded  = metric("nodes_reboot_needed", "Nodes that run something else than they would boot now.", "image")
	promoted      = metric("promoted", "1 for the version that new mounts get.", "image", "version")
	promotedAt    = metric("promoted_timestamp_seconds", "When that was last changed for all nodes.", "image")
	rolloutNodes  = metric("rollout_nodes", "Nodes that are to get a version that is promoted for some nodes or watched, those of them that run it, and what watching them showed.", "image", "version", "state")
	rolloutEvents = metric("rollout_events_total", "What was done with an image since the server began.", "image", "action")
	versions      = metric("versions", "Sealed versions, by whether they can be read.", "image", "state")
	seals         = metric("seals_total", "Versions that were sealed since the server began.", "image")
	sealedAt      = metric("last_seal_timestamp_seconds", "When the newest version was sealed.", "image")

	bootTransfers = metric("boot_files_total", "Boot files that nodes asked for over TFTP, by what became of them.", "result")
	bootBytes     = metric("boot_file_bytes_total", "Bytes of boot files that were sent.")
	bootRunning   = metric("boot_files_running", "Boot files that are being sent.")

	buildInfo = metric("build_info", "1 for the rootnfsd that runs.", "version")
)

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rootnfsd_"+name, help, labels, nil)
}

// What stands for the version of nodes that never booted any, or one that is not there any more.
const (
	noVersion   = "(none)"
	goneVersion = "(removed)"
)

// newMetrics returns what answers for /metrics.
func newMetrics(cfg *Config) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(cfg),
	)
	errorLog, err := zap.NewStdLogAt(cfg.Log, zap.WarnLevel)
	if err != nil {
		panic(err) // only for a level that there is not
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError})
}

// collector asks for all that is told, each time anew.
type collector struct {
	cfg *Config

	mu     sync.Mutex // guards what follows
	events map[string]*eventCounts
	seals  map[string]sealCounts
}

// sealCounts counts the versions of an image that were sealed since the server began.
type sealCounts struct {
	newest time.Time // of those that were counted
	count  uint64
}

func newCollector(cfg *Config) *collector {
	c := &collector{cfg: cfg, events: map[string]*eventCounts{}, seals: map[string]sealCounts{}}
	for _, image := range imagesOf(cfg.Exports) { // what was before does not count
		if list, err := cfg.Versions(image); err == nil {
			c.countSeals(image, list)
		}
		if rollout, err := cfg.Rollout(image); err == nil {
			c.countEvents(image, rollout.History)
		}
	}
	return c
}

// Describe implements prometheus.Collector. That nothing is described means that nothing is
// fixed: a metric of which there is nothing just now is left out.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. It is called by a goroutine of the library, which
// logs a panic and tells the rest.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	debug.SetPanicOnFault(true)
	m := meter{to}
	m.gauge(buildInfo, 1, c.cfg.Build)
	m.server(c.cfg.NFS.Stats())
	content := c.cfg.Content()
	m.counter(checkedBytes, content.Checked)
	m.counter(damagedChunks, content.Damaged)
	m.counter(warmedBytes, c.cfg.Exports.Warmed())
	if c.cfg.Boot != nil {
		m.boot(c.cfg.Boot())
	}
	for _, s := range c.cfg.Exports.Serving() {
		c.image(m, s)
	}
}

// meter sends metrics.
type meter struct{ to chan<- prometheus.Metric }

func (m meter) counter(d *prometheus.Desc, v uint64, labels ...string) {
	m.to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (m meter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m.to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m meter) time(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		m.gauge(d, float64(t.UnixMilli())/1000, labels...)
	}
}

// server tells what the server has done, and has in hand.
func (m meter) server(s nfs.Snapshot) {
	for _, c := range s.Calls {
		buckets := make(map[float64]uint64, len(c.Within))
		for _, w := range c.Within {
			buckets[w.Time.Seconds()] = w.Count
		}
		m.to <- prometheus.MustNewConstHistogram(callDuration, c.Count, c.Took.Seconds(), buckets, c.Program, c.Procedure, treeOf(&c))
	}
	for name, n := range s.Errors {
		m.counter(rpcErrors, n, name)
	}
	m.counter(wrongVersion, s.NFS2, "2")
	m.counter(wrongVersion, s.NFS4, "4")
	for result, n := range s.Mounts {
		m.counter(mounts, n, result)
	}
	m.counter(waitedCalls, s.Waited)
	m.counter(received, s.Received)
	m.counter(sent, s.Sent)
	m.gauge(conns, float64(s.Conns-s.Strangers), "yes")
	m.gauge(conns, float64(s.Strangers), "no")
	m.counter(accepted, s.Accepted)
	m.counter(evicted, s.Evicted)
	m.gauge(diskReads, float64(s.Reading))
	m.gauge(pending, float64(s.Pending), "replies")
	m.gauge(pending, float64(s.Homes), "homes")
	m.gauge(pending, float64(s.Incoming), "incoming")
	m.counter(panics, s.Panics)
}

// boot tells of boot files.
func (m meter) boot(b BootFiles) {
	for result, n := range map[string]uint64{"sent": b.Sent, "aborted": b.Aborted, "failed": b.Failed, "refused": b.Refused} {
		m.counter(bootTransfers, n, result)
	}
	m.counter(bootBytes, b.Bytes)
	m.gauge(bootRunning, float64(b.Running))
}

// treeOf says what a call of NFS was about.
func treeOf(c *nfs.Calls) string {
	switch {
	case c.Program != "nfs":
		return ""
	case c.Homes:
		return "home"
	}
	return "version"
}

// image tells of an image. What it cannot be asked about is left out, which readyz tells of.
func (c *collector) image(m meter, s exports.Serving) {
	existing := map[string]bool{}
	if list, err := c.cfg.Versions(s.Image); err == nil {
		good, newest := 0, time.Time{}
		for _, v := range list {
			existing[v.Name] = true
			if !v.Damaged {
				good++
			}
			newest = latest(newest, v.Sealed)
		}
		m.gauge(versions, float64(good), s.Image, "good")
		m.gauge(versions, float64(len(list)-good), s.Image, "damaged")
		m.time(sealedAt, newest, s.Image)
		m.counter(seals, c.countSeals(s.Image, list), s.Image)
	}
	fleet := c.cfg.Exports.Fleet(s.Image)
	m.fleet(s, existing, fleet)
	if s.Promoted.Version != "" {
		m.gauge(promoted, 1, s.Image, s.Promoted.Version)
	}
	rollout, err := c.cfg.Rollout(s.Image)
	if err != nil {
		return
	}
	m.rollout(s.Image, &rollout, fleet)
	counts, since := c.countEvents(s.Image, rollout.History)
	for action, n := range counts {
		m.counter(rolloutEvents, n, s.Image, action)
	}
	m.time(promotedAt, since, s.Image)
}

// fleet tells how many nodes there are of each sort.
func (m meter) fleet(s exports.Serving, existing map[string]bool, fleet []exports.NodeStatus) {
	type sort struct {
		version string
		state   exports.NodeState
	}
	counts := map[sort]int{{noVersion, exports.StateNew}: 0}
	for _, state := range []exports.NodeState{exports.StateBooting, exports.StateUp, exports.StateSilent} {
		if s.Promoted.Version != "" {
			counts[sort{s.Promoted.Version, state}] = 0
		}
	}
	reboot := 0
	for i := range fleet {
		n := &fleet[i]
		version := cmp.Or(n.Running, noVersion)
		if n.Running != "" && !existing[n.Running] {
			version = goneVersion
		}
		counts[sort{version, n.State}]++
		if n.RebootNeeded {
			reboot++
		}
	}
	for of, n := range counts {
		m.gauge(nodes, float64(n), s.Image, of.version, string(of.state))
	}
	m.gauge(rebootNeeded, float64(reboot), s.Image)
}

// rollout tells how far a version has come that some nodes get first, or that is watched.
func (m meter) rollout(image string, r *exports.Rollout, fleet []exports.NodeStatus) {
	var of exports.Ref
	switch {
	case r.Watch != nil:
		of = r.Watch.Ref
		_, good, bad := r.Watch.Tally()
		m.gauge(rolloutNodes, float64(good), image, of.Version, "good")
		m.gauge(rolloutNodes, float64(bad), image, of.Version, "bad")
		unknown := 0
		for _, t := range r.Watch.Nodes {
			if t.Bad == "" && t.Unknown != "" {
				unknown++
			}
		}
		m.gauge(rolloutNodes, float64(unknown), image, of.Version, "unknown")
	case r.Partial != nil:
		of = r.Partial.Ref
	default:
		return
	}
	promised, booted := 0, 0
	digest := of.Digest.String()
	for i := range fleet {
		n := &fleet[i]
		if n.PromisedDigest != digest || n.Why == exports.ByCommandLine {
			continue
		}
		promised++
		if n.Digest == digest {
			booted++
		}
	}
	m.gauge(rolloutNodes, float64(promised), image, of.Version, "promised")
	m.gauge(rolloutNodes, float64(booted), image, of.Version, "booted")
}

// countSeals returns how many versions were sealed since the server began; one that was removed before anybody asked is none of them.
func (c *collector) countSeals(image string, list []Version) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, known := c.seals[image]
	newest := s.newest
	for _, v := range list {
		if known && v.Sealed.After(s.newest) {
			s.count++
		}
		newest = latest(newest, v.Sealed)
	}
	s.newest = newest
	c.seals[image] = s
	return s.count
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// actions are those of the history; what is none of them counts as other.
var actions = []string{"promote", "rollback", "good", "bad", "pin", "unpin", "draft", "release", "seal", "abandon", "remove", "gc", "other"}

// eventCounts counts events of a history of which only the last are kept.
type eventCounts struct {
	last   exports.Event // that was counted
	counts map[string]uint64
}

// countEvents returns how many events there were since the server began, by action, and when
// what all nodes get was last changed.
func (c *collector) countEvents(image string, history []exports.Event) (counts map[string]uint64, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.events[image]
	if e == nil {
		e = &eventCounts{counts: map[string]uint64{}}
		for _, a := range actions {
			e.counts[a] = 0
		}
		if len(history) > 0 {
			e.last = history[len(history)-1]
		}
		c.events[image] = e
	}
	e.count(history)
	for _, event := range history {
		if (event.Action == "promote" || event.Action == "rollback") && event.Nodes == "" {
			since = event.Time
		}
	}
	return maps.Clone(e.counts), since
}

// count counts what came behind the last event that was counted. If that is not there any
// more, all of them are new.
func (e *eventCounts) count(history []exports.Event) {
	known := 0
	for i, event := range slices.Backward(history) {
		if sameEvent(event, e.last) {
			known = i + 1
			break
		}
	}
	for _, event := range history[known:] {
		action := event.Action
		if !slices.Contains(actions, action) {
			action = "other"
		}
		e.counts[action]++
		e.last = event
	}
}

func sameEvent(a, b exports.Event) bool {
	return a.Time.Equal(b.Time) && a.Action == b.Action && a.Ref == b.Ref && a.Nodes == b.Nodes && a.By == b.By
}
