package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench/relay"
)

func benchRelayCommand() *cli.Command {
	return &cli.Command{
		Name:  relay.Command[1],
		Usage: "forward TCP connections, or datagrams, with a delay",
		Description: `For machines whose kernel has no netem. It says where it listens.

With --udp it forwards datagrams over IPv4, and follows a server of TFTP to the port
that this chooses for each transfer.

Examples:
   rootnfsd bench relay --listen :12049 --target server:2049 --rtt 1ms
   rootnfsd bench relay --udp --listen :1069 --target server:69 --rtt 1ms`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:0", Usage: "accept connections, or datagrams, at `ADDR`"},
			&cli.StringFlag{Name: "target", Required: true, Usage: "forward them to `HOST:PORT`"},
			&cli.BoolFlag{Name: "udp", Usage: "forward datagrams"},
			&cli.DurationFlag{Name: "rtt", Value: time.Millisecond, Usage: "add `TIME` to each round trip, half of it each way"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			run := relay.Main
			if c.Bool("udp") {
				run = relay.MainDatagrams
			}
			return run(c.String("listen"), c.String("target"), c.Duration("rtt"))
		},
	}
}
