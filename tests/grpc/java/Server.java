import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.FileOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;

/** grpc-java's Netty server with the services of tests/servers/grpc_parts.py: java Server --port PORT --log FILE. */
final class Server {
    private static FileOutputStream log;

    public static void main(String[] words) throws IOException, InterruptedException {
        Map<String, String> options = Map.of(words[0], words[1], words[2], words[3]);
        log = new FileOutputStream(options.get("--log"), true);
        int port = Integer.parseInt(options.get("--port"));
        NettyServerBuilder builder = NettyServerBuilder.forAddress(new InetSocketAddress("::", port));
        builder.maxInboundMessageSize(64 << 20).intercept(new Notes());
        builder.addService(service(Names.ORDERS, List.of("Get", "Sum", "List", "Chat", "Wait")));
        builder.addService(service(Names.ADMIN, List.of("Delete", "Purge", "Dump", "Shell")));
        io.grpc.Server server = builder.build().start();
        System.out.println("ready");
        server.awaitTermination();
    }

    private static ServerServiceDefinition service(String service, List<String> names) {
        ServerServiceDefinition.Builder made = ServerServiceDefinition.builder(service);
        for (String name : names) {
            made.addMethod(Names.method(service, name), handler(name));
        }
        return made.build();
    }

    private static ServerCallHandler<byte[], byte[]> handler(String name) {
        if (name.equals("Wait")) {
            return ServerCalls.asyncUnaryCall(Server::waiting);
        }
        return switch (Names.METHODS.get(name)) {
            case CLIENT_STREAMING -> ServerCalls.asyncClientStreamingCall(Sum::new);
            case SERVER_STREAMING -> ServerCalls.asyncServerStreamingCall(Server::list);
            case BIDI_STREAMING -> ServerCalls.asyncBidiStreamingCall(Chat::new);
            default -> ServerCalls.asyncUnaryCall(Server::get);
        };
    }

    private static void get(byte[] request, StreamObserver<byte[]> answer) {
        answer.onNext(request);
        answer.onCompleted();
    }

    private static void waiting(byte[] request, StreamObserver<byte[]> answer) {
        Context.current().addListener(context -> answer.onNext(request), Runnable::run);
    }

    private static void list(byte[] request, StreamObserver<byte[]> answer) {
        String[] words = new String(request, StandardCharsets.UTF_8).split(" ");
        for (int number = 0; number < Integer.parseInt(words[0]); number++) {
            answer.onNext(new byte[Integer.parseInt(words[1])]);
        }
        answer.onCompleted();
    }

    private static synchronized void write(String line) {
        try {
            log.write((line + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException failed) {
            throw new IllegalStateException(failed);
        }
    }

    /** Answers each message with itself. */
    private static class Chat implements StreamObserver<byte[]> {
        final StreamObserver<byte[]> answer;

        Chat(StreamObserver<byte[]> answer) {
            this.answer = answer;
        }

        @Override
        public void onNext(byte[] request) {
            answer.onNext(request);
        }

        @Override
        public void onError(Throwable error) {}

        @Override
        public void onCompleted() {
            answer.onCompleted();
        }
    }

    /** Counts messages and bytes. */
    private static final class Sum extends Chat {
        private int count;
        private int size;

        Sum(StreamObserver<byte[]> answer) {
            super(answer);
        }

        @Override
        public void onNext(byte[] request) {
            count++;
            size += request.length;
        }

        @Override
        public void onCompleted() {
            answer.onNext((count + " " + size).getBytes(StandardCharsets.UTF_8));
            answer.onCompleted();
        }
    }

    /** Writes down each call that has come, and that has ended. */
    private static final class Notes implements ServerInterceptor {
        @Override
        public <A, B> ServerCall.Listener<A> interceptCall(
                ServerCall<A, B> call, Metadata headers, ServerCallHandler<A, B> next) {
            String method = "/" + call.getMethodDescriptor().getFullMethodName();
            String peer = String.valueOf(call.getAttributes().get(Grpc.TRANSPORT_ATTR_REMOTE_ADDR));
            write("{\"event\": \"call\", \"metadata\": [], \"method\": " + Names.json(method) + "}");
            Context.current().addListener(context -> {
                String how = call.isCancelled() ? "cancelled" : "ok";
                write("{\"event\": \"end\", \"how\": \"" + how + "\", \"peer\": " + Names.json(peer) + "}");
            }, Runnable::run);
            return next.startCall(call, headers);
        }
    }
}
