package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/exports"
)

func TestNodeFilesOf(t *testing.T) {
	top := t.TempDir()
	store, nodes := filepath.Join(top, "images"), filepath.Join(top, "nodes")
	for _, dir := range []string{store + "/v1", nodes, top + "/home"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(store, filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(top, "rootnfsd.yaml")
	if err := os.WriteFile(file, []byte("node-files: "+nodes+"\nno-node-identity: true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(store, ".rootnfsd", "node-keys")
	for _, c := range []struct{ args, want string }{
		{"", fmt.Sprint("{ true ", secrets, "}")},
		{"--no-node-identity", "none"},
		{"--node-files " + nodes + "/.", fmt.Sprint("{", nodes, " true ", secrets, "}")},
		{"--config " + file, fmt.Sprint("{", nodes, " false ", secrets, "}")},
		{"--config " + file + " --no-node-identity=false", fmt.Sprint("{", nodes, " true ", secrets, "}")},
		{"--node-ports any", fmt.Sprint("{ true ", secrets, "} any port")},
		{"--node-ports reserved", fmt.Sprint("{ true ", secrets, "}")},
		{"--node-ports 1023 --no-node-identity=false", "want reserved or any"},
		{"--node-files " + top + "/missing", "there is no directory"},
		{"--node-files " + file, "is not a directory"},
		{"--node-files " + store + "/v1", "the store"},
		{"--node-files " + top + "/link/v1", "the store"},
		{"--node-files " + top, "the store"},
		{"--node-files " + top + "/home", "the homes"},
	} {
		var got string
		app := &cli.App{Flags: append(nodeFileFlags(), configFlag()), Action: func(ctx *cli.Context) error {
			cfg, err := readConfig(ctx)
			if err != nil {
				return err
			}
			images := []exports.Image{{Dir: store, StateDir: filepath.Join(store, ".rootnfsd")}}
			if err := nodeFilesOf(ctx, cfg.NodeFiles, images, &exports.Homes{Dir: top + "/home"}); err != nil {
				got = err.Error()
				return nil
			}
			got = "none"
			if images[0].Files != nil {
				got = fmt.Sprint(images[0].Files.(ownFiles).Options)
			}
			if images[0].AnyPort {
				got += " any port"
			}
			return nil
		}}
		if err := app.Run(append([]string{"rootnfsd"}, strings.Fields(c.args)...)); err != nil {
			t.Fatal(err)
		}
		if got != c.want && (strings.HasPrefix(c.want, "{") || c.want == "none" || !strings.Contains(got, c.want)) {
			t.Errorf("%q: %s; want %s", c.args, got, c.want)
		}
	}
}
