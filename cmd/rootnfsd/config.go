package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

const defaultConfig = "/etc/rootnfsd/rootnfsd.yaml"

// config is the configuration file: what the flags of serve say, by the same
// names.
type config struct {
	Export    []string `yaml:"export"`
	Listen    string   `yaml:"listen"`
	Portmap   string   `yaml:"portmap"`
	TFTP      string   `yaml:"tftp"`
	Server    string   `yaml:"server-address"`
	Allow     []string `yaml:"allow"`
	Admin     string   `yaml:"admin"`
	LogLevel  string   `yaml:"log-level"`
	LogFormat string   `yaml:"log-format"`

	Homes homeConfig `yaml:",inline"`

	NodeFiles nodeFileConfig `yaml:",inline"`
}

// readConfig reads the file that --config names. That there is none is an
// error only where the user named one.
func readConfig(c *cli.Context) (config, error) {
	var cfg config
	path := c.String("config")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !c.IsSet("config") {
		return cfg, nil
	}
	if err != nil {
		return cfg, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true) // a misspelt setting must not be ignored
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return cfg, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// str returns a flag's value, else the configuration's, else the default.
func str(c *cli.Context, flag, configured string) string {
	if !c.IsSet(flag) && configured != "" {
		return configured
	}
	return c.String(flag)
}

// list is str for a flag that can be given more than once.
func list(c *cli.Context, flag string, configured []string) []string {
	if !c.IsSet(flag) && len(configured) > 0 {
		return configured
	}
	return c.StringSlice(flag)
}

// splitCommas splits each value at its commas.
func splitCommas(values []string) []string {
	var out []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}
