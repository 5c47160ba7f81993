import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.security.MessageDigest;
import java.util.HexFormat;

/** A peer that uses sockets as Java's NIO does: one selector, readiness, no blocking. Modes as in echo.go. */
public final class Echo {
    private static final Selector SELECTOR = open();

    private static Selector open() {
        try {
            return Selector.open();
        } catch (java.io.IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private static final class Connection {
        final SocketChannel channel;
        final SelectionKey key;
        final ByteBuffer buffer = ByteBuffer.allocateDirect(30_000);
        final MessageDigest sum = MessageDigest.getInstance("SHA-256");
        int mode = -1;
        boolean ended;

        Connection(SocketChannel channel) throws Exception {
            this.channel = channel;
            channel.configureBlocking(false);
            key = channel.register(SELECTOR, SelectionKey.OP_READ, this);
        }

        void step() throws Exception {
            if (key.isReadable()) {
                read();
            }
            while (buffer.position() > 0) {
                buffer.flip();
                int written = channel.write(buffer);
                buffer.compact();
                if (written == 0) {
                    key.interestOps(SelectionKey.OP_WRITE);
                    return;
                }
            }
            if (ended) {
                channel.close();
                return;
            }
            key.interestOps(SelectionKey.OP_READ);
        }

        private void read() throws Exception {
            int got = channel.read(buffer);
            ended = got < 0;
            int from = 0;
            if (mode < 0 && got > 0) {
                mode = buffer.get(0);
                from = 1;
            }
            buffer.flip();
            buffer.position(from);
            if (mode == 'D') {
                sum.update(buffer);
                buffer.clear();
                if (ended) {
                    buffer.put(HexFormat.of().formatHex(sum.digest()).getBytes());
                }
            } else {
                buffer.compact();
            }
        }
    }

    public static void main(String[] words) throws Exception {
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(words[0], 0), 512);
        listener.configureBlocking(false);
        listener.register(SELECTOR, SelectionKey.OP_ACCEPT);
        System.out.println(listener.socket().getLocalPort());
        while (true) {
            SELECTOR.select();
            for (SelectionKey key : SELECTOR.selectedKeys()) {
                if (key.isAcceptable()) {
                    new Connection(listener.accept());
                } else {
                    ((Connection) key.attachment()).step();
                }
            }
            SELECTOR.selectedKeys().clear();
        }
    }
}
