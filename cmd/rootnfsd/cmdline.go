package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/netboot"
	"github.com/rootnfsd/rootnfsd/nodefiles"
)

func cmdlineCommand() *cli.Command {
	return &cli.Command{
		Name:  "cmdline",
		Usage: "print the kernel command line of a node",
		Description: `It is the one that serve --tftp gives to the node: the image's own words without those
that need a local disk, then the server's, then the node's own. Give it to nodes whose
boot files come from elsewhere.

It names the exact version, for the kernel beside it is of that version. With --follow
it names the image alone, and a reboot gets what is promoted then: for nodes whose
kernel fits all versions, or is replaced with each promote.

Address, port, port mapper and node identity are those of the configuration file: flags
that serve runs with are not known here (--server, --no-node-identity).

Examples:
   rootnfsd cmdline
   rootnfsd cmdline --node pi-07 --explain
   rootnfsd cmdline --for kernel --follow        a kernel without an initramfs
   rootnfsd cmdline --version v2 --server 192.168.1.66`,
		Flags: []cli.Flag{
			exportFlag(), configFlag(), jsonFlag(),
			&cli.StringFlag{Name: "node", Usage: "that of a `NODE`, by its name or address"},
			&cli.StringFlag{Name: "for", Value: "klibc", Usage: "what mounts the root: klibc, in an initramfs, or kernel, which has none"},
			&cli.StringFlag{Name: "version", Usage: "that of a `VERSION`, not of the one that the node is promised"},
			&cli.BoolFlag{Name: "follow", Usage: "name no version: each boot gets what is promoted"},
			&cli.StringFlag{Name: "server", Usage: "the server's `ADDRESS[:PORT]` as nodes see it (default: server-address of the configuration, or this machine's)"},
			&cli.BoolFlag{Name: "explain", Usage: "say of each word what it does, and of those that are left out why"},
			&cli.BoolFlag{Name: "no-node-identity", Usage: "leave out host name and machine-id, as serve does with this flag"},
		},
		Action: onStore(func(c *cli.Context, s *openedStore) error {
			line, notes, err := s.lineOf(c)
			if err != nil {
				return err
			}
			words, problem := line.All()
			if problem != nil {
				notes = append(notes, problem)
			}
			for _, note := range notes {
				fmt.Fprintf(os.Stderr, "note: %v\n", note)
			}
			switch {
			case c.Bool("json"):
				return writeJSON(c.App.Writer, cmdlineJSON{
					Line: netboot.Text(words), Node: c.String("node"), Image: line.Image, Version: line.Version, Server: line.Server, Words: words,
				})
			case c.Bool("explain"):
				return explainLine(c.App.Writer, line, words)
			}
			_, err = fmt.Fprintln(c.App.Writer, netboot.Text(words))
			return err
		}),
	}
}

// cmdlineJSON is a command line in the output of --json.
type cmdlineJSON struct {
	Line    string         `json:"line"`
	Node    string         `json:"node,omitempty"`
	Image   string         `json:"image"`
	Version string         `json:"version,omitempty"` // empty for what is promoted
	Server  netip.Addr     `json:"server"`
	Words   []netboot.Word `json:"words"`
}

// lineOf returns what the command line is made of that the flags ask for, and what is strange about it.
func (s *openedStore) lineOf(c *cli.Context) (line *netboot.Line, notes []error, err error) {
	line = &netboot.Line{Image: s.name, Bare: c.String("for") == "kernel"}
	if !line.Bare && c.String("for") != "klibc" {
		return nil, nil, usageError(c, "--for %s: want klibc or kernel", c.String("for"))
	}
	if c.Bool("follow") && c.IsSet("version") {
		return nil, nil, usageError(c, "--follow names no version: leave out --version")
	}
	cfg, err := readConfig(c)
	if err != nil {
		return nil, nil, err
	}
	if line.Server, line.Ports, err = serverOf(c, &cfg); err != nil {
		return nil, nil, err
	}
	entry, member, err := s.memberNamed(c.String("node"))
	if err != nil {
		return nil, nil, err
	}
	tree, version, draft, err := s.bootTree(member, c.String("version"))
	if err != nil {
		return nil, nil, err
	}
	if line.Draft = draft; !c.Bool("follow") || draft {
		line.Version, line.FSID = version, tree.FSID()
	}
	line.Words, err = netboot.ImageWords(tree)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		notes = append(notes, err)
	}
	if entry == nil {
		return line, notes, nil
	}
	line.Own = entry.Cmdline
	if !identityWanted(c, cfg.NodeFiles) {
		return line, notes, nil
	}
	line.Hostname = cmp.Or(entry.Hostname, entry.Name)
	if line.MachineID, err = s.machineID(entry); err != nil {
		notes = append(notes, fmt.Errorf("the machine-id is left out: %w", err))
	}
	return line, notes, nil
}

// bootTree returns what a node boots, or the version of a name: its tree, what it is called, and whether it is a draft.
func (s *openedStore) bootTree(m exports.Member, version string) (tree fs.Tree, name string, draft bool, err error) {
	rollout, err := s.state.Rollout()
	if err != nil {
		return nil, "", false, err
	}
	d := rollout.DraftNamed(version)
	if version == "" {
		d = rollout.DraftOf(m.Key)
	}
	if d != nil {
		tree, err := openDraftTree(s.drafts().Tree(d.Version))
		return tree, d.Version, true, explainPermission(err)
	}
	info, err := s.bootedBy(&rollout, m, version)
	if err != nil {
		return nil, "", false, err
	}
	v, err := s.OpenDigest(info.Name, info.Digest)
	if err != nil {
		return nil, "", false, explainPermission(err)
	}
	return v, info.Name, false, nil
}

// machineID returns the machine-id of a node, if it is given to the node: nobody can tell one that has no address from others.
func (s *openedStore) machineID(e *exports.Entry) (string, error) {
	if len(e.Addresses) == 0 {
		return "", nil
	}
	maker, err := nodefiles.New(nodefiles.Options{Identity: true, Secrets: nodeKeys(s.StateDir())})
	if err != nil {
		return "", err
	}
	id, err := maker.MachineID(e.Name)
	return id, explainPermission(err)
}

// memberNamed returns the node of a name or address, and its entry if it has one. An empty key is a node that nobody knows.
func (s *openedStore) memberNamed(key string) (*exports.Entry, exports.Member, error) {
	if key == "" {
		return nil, exports.Member{}, nil
	}
	inv, err := s.state.Inventory()
	if err != nil {
		return nil, exports.Member{}, err
	}
	if e := inv.Named(key); e != nil {
		return e, exports.MemberOf(e, netip.Addr{}), nil
	}
	addr, err := netip.ParseAddr(key)
	if err != nil {
		return nil, exports.Member{}, namedIn(inv, []string{key})
	}
	e := inv.At(addr)
	return e, exports.MemberOf(e, addr), nil
}

// bootedBy returns the version of a name or, if that is empty, the one that a node is promised.
func (s *openedStore) bootedBy(rollout *exports.Rollout, m exports.Member, version string) (image.Info, error) {
	if version != "" {
		return s.info(version)
	}
	var ref exports.Ref
	if m.Key == "" {
		ref, _ = rollout.Promoted()
	} else {
		ref, _ = rollout.Promise(m)
	}
	if ref.Version == "" {
		return image.Info{}, errors.New("nothing is promoted: rootnfsd promote VERSION, or say --version")
	}
	info, found, err := s.held(ref)
	if err == nil && !found {
		err = fmt.Errorf("the promised version %s is gone, or cannot be read (rootnfsd versions)", ref.Version)
	}
	return info, err
}

// serverOf returns where nodes find the server: as --server says, else as a server with this configuration would announce it.
func serverOf(c *cli.Context, cfg *config) (netip.Addr, netboot.Ports, error) {
	ports := netboot.Ports{NFS: 2049, Mapper: cfg.Portmap != "off"}
	listen, err := net.ResolveTCPAddr("tcp", cmp.Or(cfg.Listen, ":2049"))
	if err != nil {
		return netip.Addr{}, ports, fmt.Errorf("listen in the configuration: %w", err)
	}
	ports.NFS = listen.Port
	if text := c.String("server"); text != "" {
		addr, port := text, ""
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			addr, port = text[:i], text[i+1:]
		}
		a, err := netip.ParseAddr(addr)
		if err == nil && port != "" {
			ports.NFS, err = strconv.Atoi(port)
		}
		if err != nil || !a.Is4() || ports.NFS < 1 || ports.NFS > 65535 {
			return netip.Addr{}, ports, usageError(c, "--server %s: want an address such as 192.168.1.66, for nodes mount their root over IPv4 only", text)
		}
		return a, ports, nil
	}
	if set, err := parseServerAddress(cfg.Server); set.IsValid() || err != nil {
		return set, ports, err
	}
	allow, err := parseAllow(splitCommas(cfg.Allow))
	if err != nil {
		return netip.Addr{}, ports, err
	}
	return nodesSee(serverAddrs(listen.AddrPort().Addr().Unmap()), allow), ports, nil
}

// explainLine prints what each word does.
func explainLine(w io.Writer, line *netboot.Line, words []netboot.Word) error {
	rows, out := [][]string{{"WORD", "FROM", "WHAT IT DOES"}}, [][]string{{"LEFT OUT", "FROM", "WHY"}}
	for _, word := range words {
		if word.LeftOut {
			out = append(out, []string{beforeOptions(word), string(word.By), word.Why})
			continue
		}
		rows = append(rows, []string{beforeOptions(word), string(word.By), word.Why})
		for _, o := range word.Options {
			rows = append(rows, []string{"  ," + o.Text, "", o.Why})
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if len(out) > 1 {
		fmt.Fprintln(w)
		if err := table(w, out); err != nil {
			return err
		}
	}
	why := "It names the version, whose kernel a node must boot with it; --follow names the image alone, and each boot gets what is promoted then.\n"
	switch {
	case line.Draft:
		why = "It is for a draft: when that is sealed, released or abandoned, the node needs another one.\n"
	case line.Version == "":
		why = "It names no version: each boot gets what is promoted then, and the kernel that is booted must fit that.\n"
	}
	_, err := fmt.Fprintf(w, "\n%s\n%s\n", why, netboot.Text(words))
	return err
}

// beforeOptions is a word without the options that are told of one by one.
func beforeOptions(w netboot.Word) string {
	if len(w.Options) == 0 {
		return w.Text
	}
	text, _, _ := strings.Cut(w.Text, ",")
	return text
}
