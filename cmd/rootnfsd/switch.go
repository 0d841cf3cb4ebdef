package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

// promotion reads from the flags for whom a version is promoted, and how it is watched.
func (s *openedStore) promotion(c *cli.Context) (exports.Promotion, error) {
	p := exports.Promotion{By: operator(), Good: c.Duration("wait-good"), MaxBad: c.Int("max-bad")}
	switch {
	case p.Good < 0 || c.IsSet("wait-good") && p.Good < time.Second:
		return p, usageError(c, "--wait-good %s: want a second at least, such as 5m", p.Good)
	case p.MaxBad < 0 || c.IsSet("max-bad") && p.Good == 0:
		return p, usageError(c, "--max-bad N says how many nodes may fail while --wait-good watches them")
	case p.Good > 0 && servedBy(s.StateDir()) == 0:
		return p, errors.New("the server watches nodes, and none serves this store (rootnfsd serve)")
	}
	to := &exports.Partial{Percent: c.Float64("percent"), Labels: splitCommas(c.StringSlice("label"))}
	if c.IsSet("percent") && !(to.Percent > 0 && to.Percent <= 100) {
		return p, usageError(c, "--percent %g: want more than 0, and 100 at most", to.Percent)
	}
	if lists := c.StringSlice("nodes"); len(lists) > 0 {
		var err error
		if to.Nodes, err = hostlist.Expand(lists...); err != nil {
			return p, err
		}
	}
	if len(to.Nodes) == 0 && len(to.Labels) == 0 && to.Percent == 0 {
		return p, nil
	}
	p.To = to
	fleet, err := s.fleet(c.Context)
	if err != nil {
		return p, err
	}
	if err := unknownNodes(to.Nodes, fleet); err != nil {
		return p, err
	}
	to.Nodes = keysOf(to.Nodes, fleet)
	return p, unknownLabels(to.Labels, fleet)
}

// keysOf replaces addresses of nodes that have a name by that.
func keysOf(names []string, fleet []exports.NodeStatus) []string {
	keys := map[string]string{}
	for _, n := range fleet {
		keys[n.Address.String()] = n.Key()
	}
	out := slices.Clone(names)
	for i, name := range out {
		if key := keys[name]; key != "" {
			out[i] = key
		}
	}
	return out
}

// previewPromote says what a promotion would do.
func (s *openedStore) previewPromote(c *cli.Context, name string, p exports.Promotion) error {
	info, err := s.info(name)
	switch {
	case err == nil:
		p.Ref = refOf(info)
	case s.hasTree(name):
		p.Ref = exports.Ref{Version: name} // without a digest: it is no version yet
		fmt.Fprintf(c.App.ErrWriter, "the tree %s would be sealed first\n", name)
	default:
		return err
	}
	before, changed, err := s.change(p)
	if err != nil {
		return explainPromote(err)
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, switchJSON{Before: before, Promoted: name, Changed: len(changed) > 0, Nodes: changed, RebootNeeded: []string{}, DryRun: true})
	}
	fmt.Fprintf(c.App.Writer, "would be done: %s\n", changeLine(p, changed))
	return nil
}

// announceSwitch says what a promotion changes for how many nodes, before it happens.
func (s *openedStore) announceSwitch(c *cli.Context, p exports.Promotion) error {
	before, changed, err := s.change(p)
	if err != nil {
		return explainPromote(err)
	}
	if before != "" && !c.Bool("json") {
		fmt.Fprintln(c.App.ErrWriter, changeLine(p, changed))
	}
	return nil
}

// change returns what is promoted, and which nodes will get another version after a promotion.
func (s *openedStore) change(p exports.Promotion) (before string, changed []string, err error) {
	rollout, inv, seen, err := s.known()
	if err != nil {
		return "", nil, err
	}
	promoted, _ := rollout.Promoted()
	after, err := rollout.With(p)
	if err != nil {
		return "", nil, err
	}
	now := time.Now()
	changed = []string{}
	was := exports.Fleet(&rollout, inv, seen, now)
	for i, n := range exports.Fleet(&after, inv, seen, now) {
		if n.PromisedDigest != was[i].PromisedDigest {
			changed = append(changed, n.Key())
		}
	}
	return promoted.Version, changed, nil
}

func changeLine(p exports.Promotion, changed []string) string {
	who := "all nodes"
	if p.To != nil {
		who = p.To.String()
	}
	line := fmt.Sprintf("%s for %s: %s will get another version than now", p.Version, who, plural(len(changed), "known node"))
	const few = 8
	if n := len(changed); n > 0 && n <= few {
		line += " (" + hostlist.Compress(changed) + ")"
	}
	return line
}

// explainPromote says what to do about an error of a promotion.
func explainPromote(err error) error {
	if errors.Is(err, exports.ErrNothingForAll) {
		return fmt.Errorf("%w (rootnfsd promote VERSION)", err)
	}
	return err
}

// switchJSON is what promote and rollback print with --json.
type switchJSON struct {
	Before       string   `json:"before"`
	Promoted     string   `json:"promoted"`
	For          string   `json:"for,omitempty"` // the nodes, if not all
	Changed      bool     `json:"changed"`
	Nodes        []string `json:"nodes,omitempty"` // that would get another version
	RebootNeeded []string `json:"reboot_needed"`   // nodes on another version than they are promised
	DryRun       bool     `json:"dry_run,omitempty"`
}

// reportSwitch says what is promoted now, and who has to reboot for it.
func (s *openedStore) reportSwitch(c *cli.Context, before, after string, same bool, to *exports.Partial) error {
	nodes, err := s.fleet(c.Context)
	if err != nil {
		return err
	}
	out := switchJSON{Before: before, Promoted: after, Changed: !same, RebootNeeded: []string{}}
	if to != nil {
		out.For = to.String()
	}
	for _, n := range nodes {
		if n.RebootNeeded {
			out.RebootNeeded = append(out.RebootNeeded, n.Key())
		}
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, out)
	}
	switch {
	case same:
		fmt.Fprintf(c.App.Writer, "%s is promoted already\n", after)
	case to != nil:
		fmt.Fprintf(c.App.Writer, "promoted %s for %s (the others go on with %s)\n", after, out.For, before)
	case before == "":
		fmt.Fprintf(c.App.Writer, "promoted %s\n", after)
	default:
		fmt.Fprintf(c.App.Writer, "promoted %s (before: %s)\n", after, before)
	}
	if n := len(out.RebootNeeded); n > 0 {
		fmt.Fprintf(c.App.Writer, "%s running another version until rebooted (rootnfsd nodes)\n", plural(n, "node")+map[bool]string{true: " is", false: " are"}[n == 1])
	}
	return nil
}

// follow says what becomes of a promotion that the server watches, until that is
// decided. The error is that it was taken back.
func (s *openedStore) follow(c *cli.Context, ref exports.Ref) error {
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	line := newStatusLine()
	defer line.clear()
	for {
		rollout, err := s.state.Rollout()
		if err != nil {
			return err
		}
		if rollout.Watch == nil || !rollout.Watch.Is(ref) {
			line.clear()
			return outcomeOf(c, rollout, ref)
		}
		line.show(s.watchLine(ctx, rollout.Watch))
		select {
		case <-ctx.Done():
			line.clear()
			fmt.Fprintln(c.App.ErrWriter, "the server goes on watching (rootnfsd status, rootnfsd history)")
			return nil
		case <-time.After(time.Second):
		}
	}
}

// watchLine says how far a rollout has come that is watched.
func (s *openedStore) watchLine(ctx context.Context, w *exports.Watch) string {
	booted, good, bad := w.Tally()
	promised := 0
	if fleet, err := s.fleet(ctx); err == nil {
		for _, n := range fleet {
			if n.PromisedDigest == w.Digest.String() && n.Why != exports.ByCommandLine {
				promised++
			}
		}
	}
	return fmt.Sprintf("%s: of %s %d booted it, %d good, %d bad; each is watched for %s", w.Version, plural(promised, "node"), booted, good, bad, w.Good)
}

// outcomeOf says how a rollout went that is not watched any more.
func outcomeOf(c *cli.Context, r exports.Rollout, ref exports.Ref) error {
	for _, e := range slices.Backward(r.History) {
		switch {
		case e.Action == "good" && ref.Is(e.Ref):
			fmt.Fprintf(c.App.Writer, "%s is good: %s\n", ref.Version, e.Note)
			return nil
		case e.Action == "bad" && ref.Is(e.Ref):
			return fmt.Errorf("%s is bad: %s", ref.Version, e.Note)
		case e.Action == "rollback":
			return fmt.Errorf("taken back: %s", strings.TrimPrefix(e.Note, " "))
		case e.Action == "promote" && !ref.Is(e.Ref):
			return fmt.Errorf("%s promoted %s meanwhile", e.By, e.Version)
		}
	}
	return nil
}
