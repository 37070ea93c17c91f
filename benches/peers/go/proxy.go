package main

import (
	"flag"
	"io"
	"net"
	"sync"
)

// proxyMain: io.Copy each way, which splices where the system can.
func proxyMain(args []string) error {
	addr, args, err := address(args)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("proxy", flag.ExitOnError)
	to := flags.String("to", "", "the target")
	flags.Parse(args)
	return serve(addr, func(client net.Conn) { between(client.(*net.TCPConn), *to) })
}

func between(client *net.TCPConn, target string) {
	defer client.Close()
	conn, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer conn.Close()
	server := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Add(2)
	pass := func(to, from *net.TCPConn) {
		defer both.Done()
		io.Copy(to, from)
		to.CloseWrite()
	}
	go pass(server, client)
	go pass(client, server)
	both.Wait()
}
