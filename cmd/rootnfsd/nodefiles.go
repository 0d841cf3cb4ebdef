package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/layer"
	"github.com/rootnfsd/rootnfsd/nodefiles"
)

// nodeFileConfig is what the configuration file says of what differs from node
// to node.
type nodeFileConfig struct {
	NodeFiles      string `yaml:"node-files"`
	NodePorts      string `yaml:"node-ports"`
	NoNodeIdentity bool   `yaml:"no-node-identity"`
}

func nodeFileFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "node-files", Usage: "give nodes files of their own from this `DIR`: all of them DIR/_all/…, one DIR/NODE/…"},
		&cli.StringFlag{Name: "node-ports", Value: "reserved", Usage: "from which ports a node gets files of its own: reserved (below 1024, which only its root can use) or any"},
		&cli.BoolFlag{Name: "no-node-identity", Usage: "give nodes that have a name no host name, machine-id and ssh host keys of their own"},
	}
}

// nodeFilesOf gives the images what makes files of nodes, if any are wanted.
func nodeFilesOf(c *cli.Context, cfg nodeFileConfig, images []exports.Image, homes *exports.Homes) error {
	o := nodefiles.Options{Dir: str(c, "node-files", cfg.NodeFiles), Identity: identityWanted(c, cfg)}
	ports := str(c, "node-ports", cfg.NodePorts)
	if ports != "reserved" && ports != "any" {
		return usageError(c, "--node-ports %s: want reserved or any", ports)
	}
	if o.Dir == "" && !o.Identity {
		return nil
	}
	if o.Dir != "" {
		if err := checkNodeFiles(&o.Dir, images, homes); err != nil {
			return err
		}
	}
	for i := range images {
		o.Secrets = nodeKeys(images[i].StateDir)
		maker, err := nodefiles.New(o)
		if err != nil {
			return err
		}
		images[i].Files, images[i].AnyPort = ownFiles{maker}, ports == "any"
	}
	return nil
}

// identityWanted reports whether nodes that have a name get an identity of their own.
func identityWanted(c *cli.Context, cfg nodeFileConfig) bool {
	if c.IsSet("no-node-identity") {
		return !c.Bool("no-node-identity")
	}
	return !cfg.NoNodeIdentity
}

// nodeKeys is where a store keeps the host keys of nodes, and the secret of their machine-ids.
func nodeKeys(stateDir string) string { return filepath.Join(stateDir, "node-keys") }

// checkNodeFiles refuses a directory whose files would be everybody's: as a golden tree of a store, or
// as what nodes write to. It makes the path an absolute one.
func checkNodeFiles(dir *string, images []exports.Image, homes *exports.Homes) error {
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	*dir = abs
	for _, img := range images {
		if nested(abs, img.Dir) {
			return fmt.Errorf("--node-files %s and the store %s must not lie in each other: what is in a store is served to all", abs, img.Dir)
		}
	}
	if homes != nil && nested(abs, homes.Dir) {
		return fmt.Errorf("--node-files %s and the homes in %s must not lie in each other: nodes can write there", abs, homes.Dir)
	}
	return nil
}

// nested reports whether one of two directories is, or lies in, the other one, wherever symlinks lead.
func nested(a, b string) bool {
	return within(a, b) || within(b, a)
}

func within(dir, in string) bool {
	rel, err := filepath.Rel(realPath(in), realPath(dir))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func realPath(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// ownFiles shows what makes files of nodes to exports.
type ownFiles struct{ *nodefiles.Maker }

func (f ownFiles) Files(n exports.Mounting, base fs.Tree) ([]layer.File, []error) {
	return f.For(nodefiles.Node(n), base)
}

// machineIDs returns what tells the machine-ids of nodes, nil where these have no identity.
func machineIDs(images []exports.Image) func(image, node string) (string, error) {
	makers := map[string]*nodefiles.Maker{}
	for _, img := range images {
		if own, ok := img.Files.(ownFiles); ok && own.Identity {
			makers[img.Name] = own.Maker
		}
	}
	if len(makers) == 0 {
		return nil
	}
	return func(image, node string) (string, error) { return makers[image].MachineID(node) }
}
