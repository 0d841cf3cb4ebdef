package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/admin"
	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/hostdir"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/hostlist"
)

func draftCommand() *cli.Command {
	return &cli.Command{
		Name:      "draft",
		Usage:     "make a tree that one node boots and writes to, to become a version",
		ArgsUsage: "[VERSION]",
		Description: `Makes the golden tree <store>/VERSION of another version, and has one node boot it
read-write and without an overlay: what is installed there runs on the machine that
it is for. All other nodes get what they got before. rootnfsd seal VERSION makes a version
of it and ends the draft; then promote it as any other.

The node must have a name and an address (rootnfsd node set), and its kernel command line
must say rw and overlayroot=disabled, and no rootnfsd.overlay=, or what is installed goes
into an overlay and not into the draft; serve --tftp sees to that. As long as the draft is
one, the node gets nothing else, whatever is promoted or pinned. To make it takes root, or
CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_MKNOD, CAP_SETFCAP and CAP_SYS_ADMIN; so does
the server.

--release has the node boot what is promoted again, so that the draft can be sealed after a
reboot. Without --from a draft that there is is given to a node, the same or another one.
Without a VERSION the drafts are listed.

Examples:
   rootnfsd draft v3 --from v2 --node pi-01
   rootnfsd draft --release v3       then reboot pi-01, and rootnfsd seal v3
   rootnfsd draft v3 --node pi-01    go on with it
   rootnfsd draft --abandon v3       delete it`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.StringFlag{Name: "from", Usage: "the `VERSION` to begin with (default: the promoted one)"},
			&cli.StringFlag{Name: "node", Usage: "the `NODE` that boots it"},
			&cli.BoolFlag{Name: "release", Usage: "have the node boot what is promoted again"},
			&cli.BoolFlag{Name: "abandon", Usage: "delete the draft"},
			&cli.BoolFlag{Name: "force", Usage: "take the draft away from a node that is on it"},
			&cli.BoolFlag{Name: "dry-run", Usage: "with --abandon: only say what would be done"},
		},
		Action: draftAction,
	}
}

func draftAction(c *cli.Context) error {
	s, err := openOneStore(c)
	if err != nil {
		return err
	}
	ends := c.Bool("release") || c.Bool("abandon")
	switch {
	case c.NArg() == 0 && !ends && c.String("node") == "" && c.String("from") == "":
		return s.listDrafts(c)
	case c.NArg() != 1:
		return usageError(c, "want exactly one version, got %d arguments", c.NArg())
	case c.Bool("release") && c.Bool("abandon"):
		return usageError(c, "--release keeps the draft and --abandon deletes it: choose one")
	case ends && (c.IsSet("from") || c.IsSet("node")):
		return usageError(c, "--from and --node are for a draft that is to be made")
	case (c.Bool("force") || c.Bool("dry-run")) && !c.Bool("abandon"):
		return usageError(c, "--force and --dry-run are for --abandon")
	}
	name := c.Args().First()
	rollout, err := s.state.Rollout()
	if err != nil {
		return err
	}
	draft := rollout.DraftNamed(name)
	switch {
	case ends && draft == nil:
		return s.unknownDraft(name, &rollout)
	case c.Bool("abandon"):
		return s.abandonDraft(c, draft)
	case c.Bool("release"):
		if err := s.drafts().Release(name, operator()); err != nil {
			return explainDraft(name, err)
		}
		return s.reportDraft(c, name, fmt.Sprintf("%s boots what is promoted at its next boot; the draft stays (rootnfsd seal %s)", draft.Node, name))
	case draft != nil && c.String("from") != "":
		return fmt.Errorf("%s is a draft already, of %s for node %s: choose another name, or give it to a node with --node alone", name, draft.From.Version, draft.Node)
	case draft != nil:
		return s.giveDraft(c, draft)
	}
	return s.makeDraft(c, name, &rollout)
}

func (s *openedStore) drafts() *exports.Drafts { return exports.OpenDrafts(s.state, s.Dir()) }

// openDraftTree opens the tree of a draft to read it.
func openDraftTree(dir string) (fs.Tree, error) {
	host, err := hostdir.NewHost(hostdir.Options{SingleUser: true})
	if err != nil {
		return nil, err
	}
	tree, err := host.Open(dir)
	if err != nil {
		return nil, err
	}
	return exports.NewReading(tree), nil
}

// draftNode returns the entry of the node that is to have a draft.
func (s *openedStore) draftNode(c *cli.Context) (*exports.Entry, error) {
	name := c.String("node")
	if name == "" {
		return nil, usageError(c, "say which node boots the draft: --node NODE")
	}
	inv, err := s.state.Inventory()
	if err != nil {
		return nil, err
	}
	if err := namedIn(inv, []string{name}); err != nil {
		return nil, err
	}
	e := inv.Named(name)
	for _, a := range e.Addresses {
		if !a.IsLinkLocalUnicast() || a.Is4() {
			return e, nil
		}
	}
	return nil, fmt.Errorf("node %s has no address, by which the server would know it: rootnfsd node set %s --address ADDRESS (rootnfsd nodes has those of nodes without a name)", name, name)
}

// makeDraft makes a draft of a version.
func (s *openedStore) makeDraft(c *cli.Context, name string, rollout *exports.Rollout) error {
	node, err := s.draftNode(c)
	if err != nil {
		return err
	}
	if err := rollout.MayHaveDraft(node.Name); err != nil {
		return err
	}
	if err := s.freeName(name); err != nil {
		return err
	}
	from := c.String("from")
	if from == "" {
		promoted, ok := rollout.Promoted()
		if !ok {
			return usageError(c, "nothing is promoted: say of which version the draft is to be made, with --from VERSION")
		}
		from = promoted.Version
	}
	v, err := s.version(from)
	if err != nil {
		return err
	}
	if err := refuseLosing(v); err != nil {
		return err
	}
	drafts := s.drafts()
	unlock, err := drafts.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	ctx, stop := stoppable(c.Context)
	defer stop()
	p := newProgress("checking out " + from)
	_, err = v.Extract(ctx, v.Root(), drafts.Making(name), image.ExtractOptions{Progress: p.update})
	p.done()
	if err != nil {
		return fmt.Errorf("nothing was made: %w", explainDraftExtract(err))
	}
	d := exports.NewDraft(name, refOf(v.Info()), node.Name, operator())
	if err := drafts.Start(d, func() error { return s.freeName(name) }); err != nil {
		return errors.Join(fmt.Errorf("nothing was made: %w", err), drafts.Settle())
	}
	s.warnExposed(c.App.ErrWriter, drafts.Tree(name))
	return s.reportDraft(c, name, fmt.Sprintf("draft %s of %s is in %s: node %s boots it at its next boot, with rw overlayroot=disabled nfsroot=SERVER:/%s@%s,v3,tcp,nolock,rw,hard and no rootnfsd.overlay= on its kernel command line",
		name, from, drafts.Tree(name), node.Name, s.name, name))
}

// freeName is the error for a name that a draft cannot have.
func (s *openedStore) freeName(name string) error {
	if err := image.ValidName(name); err != nil {
		return err
	}
	versions, err := s.Versions()
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.Name == name {
			return fmt.Errorf("there is a version %s: choose the name of one that is not there yet", name)
		}
	}
	if _, err := os.Lstat(s.drafts().Tree(name)); err == nil {
		return fmt.Errorf("there is a tree %s: choose another name, or move that away", s.drafts().Tree(name))
	}
	return nil
}

// refuseLosing refuses to make a draft without what only root can keep.
func refuseLosing(v *image.Version) error {
	if os.Geteuid() == 0 {
		return nil
	}
	lost, err := v.NeedsRoot(v.Root())
	if err != nil || lost == (image.Privileged{}) {
		return err
	}
	return fmt.Errorf("only root can keep all of %s (%v), and a node needs it: run as root", v.Info().Name, lost)
}

func explainDraftExtract(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("it was stopped")
	case errors.Is(err, unix.ENOTSUP):
		return fmt.Errorf("%w (the store's file system has no extended attributes, and a root needs them)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (it takes root with CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_MKNOD, CAP_SETFCAP and CAP_SYS_ADMIN)", err)
	}
	return err
}

// warnExposed warns if programs that a node leaves in a draft can be run by users of this machine.
func (s *openedStore) warnExposed(w io.Writer, dir string) {
	if open, err := exposed(dir); err == nil && open {
		fmt.Fprintf(w, "warning: users of this machine can run programs in %s, and root of the node can make them setuid: close the store to them (chmod 0700 %s), or trust the node\n", dir, s.Dir())
	}
}

// giveDraft has a node boot a draft that there is.
func (s *openedStore) giveDraft(c *cli.Context, d *exports.Draft) error {
	node, err := s.draftNode(c)
	if err != nil {
		return err
	}
	if node.Name != d.Node {
		if err := s.idle(c.Context, d.Version, "have it leave that first: rootnfsd draft --release "+d.Version+", and reboot it"); err != nil {
			return err
		}
	}
	if err := s.drafts().Give(d.Version, node.Name, operator()); err != nil {
		return explainDraft(d.Version, err)
	}
	return s.reportDraft(c, d.Version, fmt.Sprintf("node %s boots the draft %s at its next boot", node.Name, d.Version))
}

// abandonDraft deletes a draft.
func (s *openedStore) abandonDraft(c *cli.Context, d *exports.Draft) error {
	if !c.Bool("force") {
		if err := s.idle(c.Context, d.Version, "have it leave that first (rootnfsd draft --release "+d.Version+", and reboot it), or take it away from it with --force, which is right if it is off"); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		return s.reportDraft(c, d.Version, fmt.Sprintf("the draft %s of node %s, in %s, can be abandoned", d.Version, d.Node, s.drafts().Tree(d.Version)))
	}
	drafts := s.drafts()
	unlock, err := drafts.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	// Nobody must make files where they are deleted: the server is to know of it first.
	told := func() { _ = s.idle(c.Context, d.Version, "") }
	if err := drafts.Abandon(d.Version, operator(), told); err != nil {
		return explainDraft(d.Version, err)
	}
	if _, err := s.info(d.Version); err == nil {
		fmt.Fprintf(c.App.ErrWriter, "note: there is a version %s, made by a seal that was killed before it ended the draft; rootnfsd remove %s deletes it\n", d.Version, d.Version)
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, d)
	}
	_, err = fmt.Fprintf(c.App.Writer, "abandoned %s; node %s gets what is promoted\n", d.Version, d.Node)
	return err
}

// idle is the error that a node is on a draft, and what to do. When it returns, the server goes by what is on the disk
// now.
func (s *openedStore) idle(ctx context.Context, draft, remedy string) error {
	nodes := []exports.NodeStatus{}
	var err error
	if servedBy(s.StateDir()) == 0 {
		nodes, err = s.state.Fleet(time.Now())
	} else if err = admin.Dial(s.StateDir()).Get(ctx, "/v1/nodes", &nodes); err != nil {
		err = fmt.Errorf("the server does not say whether a node is on the draft %s (run as the user that it runs as): %w", draft, err)
	}
	if err != nil {
		return err
	}
	var on []string
	last := ""
	for _, n := range nodes {
		if n.OnDraft == draft {
			on = append(on, n.Key())
			last = when(n.LastCall)
		}
	}
	if len(on) == 0 {
		return nil
	}
	return &onDraftError{fmt.Sprintf("%s is on the draft %s (last call: %s): %s", hostlist.Compress(on), draft, last, remedy)}
}

// onDraftError says that nodes are on a draft.
type onDraftError struct{ text string }

func (e *onDraftError) Error() string { return e.text }

// sealDraft has seal make a version of a draft, which that ends. With force it is taken away from a node that is on it.
// If it is interrupted, the draft is what it was.
func (s *openedStore) sealDraft(ctx context.Context, name string, force bool, seal func(ctx context.Context) (image.SealResult, error)) (r image.SealResult, err error) {
	ctx, stop := stoppable(ctx)
	defer stop()
	drafts := s.drafts()
	unlock, err := drafts.Lock()
	if err != nil {
		return r, err
	}
	defer unlock()
	idle := func() error {
		err := s.idle(ctx, name, "have it leave that first (rootnfsd draft --release "+name+", and reboot it), or take it away from it with rootnfsd seal "+name+" --force, which is right if it is off")
		if on := (*onDraftError)(nil); force && errors.As(err, &on) {
			return nil
		}
		return err
	}
	if err := idle(); err != nil { // before a node is disturbed
		return r, err
	}
	err = drafts.Seal(name, operator(), idle, func() (exports.Ref, error) {
		var err error
		r, err = seal(ctx)
		return refOf(r.Info), err
	})
	if err == nil {
		_ = s.idle(ctx, name, "") // the server knows it within a second, or so at once
	}
	return r, explainDraft(name, err)
}

// draftOf returns the draft of a name, or nil.
func (s *openedStore) draftOf(name string) (*exports.Draft, error) {
	rollout, err := s.state.Rollout()
	if err != nil {
		return nil, err
	}
	return rollout.DraftNamed(name), nil
}

// notDraft is the error that a version is a draft as yet.
func (s *openedStore) notDraft(name string) error {
	d, err := s.draftOf(name)
	if d == nil || err != nil {
		return err
	}
	return fmt.Errorf("%s is a draft of node %s, and no version yet: rootnfsd seal %s", name, d.Node, name)
}

func explainDraft(name string, err error) error {
	if errors.Is(err, exports.ErrNoDraft) {
		return fmt.Errorf("%s is no draft any more: somebody has sealed or abandoned it meanwhile", name)
	}
	return err
}

func (s *openedStore) unknownDraft(name string, rollout *exports.Rollout) error {
	var names []string
	for _, d := range rollout.Drafts {
		names = append(names, d.Version)
	}
	return unknownName("draft", name, names, ", and no other (rootnfsd draft VERSION --from VERSION --node NODE)", "rootnfsd draft lists all")
}

// reportDraft says what became of a draft.
func (s *openedStore) reportDraft(c *cli.Context, name, text string) error {
	if !c.Bool("json") {
		_, err := fmt.Fprintln(c.App.Writer, text)
		return err
	}
	d, err := s.draftOf(name)
	if err != nil {
		return err
	}
	return writeJSON(c.App.Writer, d)
}

// listDrafts lists the drafts.
func (s *openedStore) listDrafts(c *cli.Context) error {
	rollout, err := s.state.Rollout()
	switch {
	case err != nil:
		return err
	case c.Bool("json"):
		return writeJSON(c.App.Writer, append([]exports.Draft{}, rollout.Drafts...))
	case len(rollout.Drafts) == 0:
		_, err := fmt.Fprintln(c.App.Writer, "there are no drafts (rootnfsd draft VERSION --from VERSION --node NODE)")
		return err
	}
	rows := [][]string{{"DRAFT", "OF", "NODE", "SINCE", "BY", ""}}
	for _, d := range rollout.Drafts {
		rows = append(rows, []string{d.Version, d.From.Version, d.Node, when(d.Since), d.By, draftState(&d)})
	}
	return table(c.App.Writer, rows)
}

// draftState says what is not as usual with a draft.
func draftState(d *exports.Draft) string {
	switch {
	case d.Sealing:
		return "is being sealed"
	case d.Released:
		return "released: the node boots what is promoted"
	}
	return ""
}

// sayDrafts says which of the nodes that are chosen get a draft, whatever else is said of them.
func sayDrafts(w io.Writer, fleet []exports.NodeStatus, chosen func(n *exports.NodeStatus) bool) {
	for _, n := range fleet {
		if n.Draft != "" && chosen(&n) {
			fmt.Fprintf(w, "%s has the draft %s and boots that until it is sealed, released or abandoned (rootnfsd draft)\n", n.Key(), n.Draft)
		}
	}
}

// describeDraft says in a few words what a draft is.
func describeDraft(d *exports.Draft) string {
	return strings.TrimSuffix(fmt.Sprintf("draft of %s for %s; %s", d.From.Version, d.Node, draftState(d)), "; ")
}
