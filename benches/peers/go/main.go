// The same programs in Go: `peer echo ADDR`, `peer proxy ADDR --to ADDR`, `peer timers`, `peer wake`.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	programs := map[string]func([]string) error{"echo": echoMain, "proxy": proxyMain, "timers": timersMain, "wake": wakeMain}
	var program func([]string) error
	if len(os.Args) > 1 {
		program = programs[os.Args[1]]
	}
	if program == nil {
		fmt.Fprintln(os.Stderr, "usage: peer echo|proxy|timers|wake ...")
		os.Exit(2)
	}
	if err := program(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

// serve accepts at addr, for ever, a goroutine a connection. Go's flags end at the first word that is
// none, so the address comes first and is taken off before.
func serve(addr string, handle func(net.Conn)) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go handle(conn)
	}
}

// address takes the address off the arguments.
func address(args []string) (string, []string, error) {
	if len(args) == 0 {
		return "", nil, fmt.Errorf("an address to listen on is wanted")
	}
	return args[0], args[1:], nil
}
