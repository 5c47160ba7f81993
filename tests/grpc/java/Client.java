import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** Calls with grpc-java's Netty client: java Client HOST PORT [thousand]. One line of JSON out. */
final class Client {
    private static final int CALLS = 1000;
    private static final int EVERY = 3;
    private final ManagedChannel channel;

    private Client(ManagedChannel channel) {
        this.channel = channel;
    }

    public static void main(String[] words) throws Exception {
        NettyChannelBuilder builder = NettyChannelBuilder.forAddress(words[0], Integer.parseInt(words[1]));
        ManagedChannel channel = builder.usePlaintext().maxInboundMessageSize(64 << 20).build();
        Client client = new Client(channel);
        System.out.println(words.length > 2 ? client.thousand() : client.everything());
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }

    private String everything() throws Exception {
        String[] allowed = {"Get", "Sum", "List", "Chat"};
        StringBuilder out = new StringBuilder("{");
        out.append("\"allowed\": ").append(four(Names.ORDERS, allowed));
        out.append(", \"refused\": ").append(four(Names.ADMIN, "Delete", "Purge", "Dump", "Shell"));
        out.append(", \"again\": ").append(four(Names.ORDERS, allowed));
        out.append(", \"thousand\": ").append(thousand());
        out.append(", \"deadline\": ").append(deadline());
        out.append(", \"cancel\": ").append(cancel());
        out.append(", \"big\": ").append(big()).append("}");
        return out.toString();
    }

    private static CallOptions within(long millis) {
        return CallOptions.DEFAULT.withDeadlineAfter(millis, TimeUnit.MILLISECONDS);
    }

    private byte[] unary(String service, String name, byte[] request, long millis) {
        return ClientCalls.blockingUnaryCall(channel, Names.method(service, name), within(millis), request);
    }

    /** A call of each of the four kinds, and what each gave. */
    private String four(String service, String... names) {
        List<String> results = new ArrayList<>();
        results.add("\"unary\": " + attempt(() -> text(unary(service, names[0], bytes("one"), 20_000))));
        results.add("\"client\": " + attempt(() -> {
            Gathering answers = new Gathering();
            StreamObserver<byte[]> requests = ClientCalls.asyncClientStreamingCall(
                    channel.newCall(Names.method(service, names[1]), within(20_000)), answers);
            send(requests, answers, new byte[1000], 20);
            return text(answers.all().get(0));
        }));
        results.add("\"server\": " + attempt(() -> {
            Iterator<byte[]> answers = ClientCalls.blockingServerStreamingCall(
                    channel, Names.method(service, names[2]), within(20_000), bytes("20 3000"));
            List<Integer> sizes = new ArrayList<>();
            answers.forEachRemaining(answer -> sizes.add(answer.length));
            return sizes.toString();
        }));
        results.add("\"both\": " + attempt(() -> list(chat(service, names[3], bytes("a"), bytes(""), bytes("c")))));
        return "{" + String.join(", ", results) + "}";
    }

    private List<byte[]> chat(String service, String name, byte[]... messages) throws Exception {
        Gathering answers = new Gathering();
        StreamObserver<byte[]> requests = ClientCalls.asyncBidiStreamingCall(
                channel.newCall(Names.method(service, name), within(20_000)), answers);
        for (byte[] message : messages) {
            send(requests, answers, message, 1);
        }
        requests.onCompleted();
        return answers.all();
    }

    /** As often as asked, and unless the call is over; ended where it is more than once. */
    private static void send(StreamObserver<byte[]> requests, Gathering answers, byte[] message, int times) {
        for (int number = 0; number < times && !answers.ended.isDone(); number++) {
            requests.onNext(message);
        }
        if (times > 1) {
            requests.onCompleted();
        }
    }

    /** Many calls at once, of which every third is refused: how many of each outcome. */
    private String thousand() throws Exception {
        List<Future<byte[]>> calls = new ArrayList<>();
        for (int number = 0; number < CALLS; number++) {
            boolean refused = number % EVERY == 0;
            calls.add(ClientCalls.futureUnaryCall(
                    channel.newCall(
                            refused ? Names.method(Names.ADMIN, "Delete") : Names.method(Names.ORDERS, "Get"),
                            within(40_000)),
                    bytes(Integer.toString(number))));
        }
        Map<String, Integer> counts = new TreeMap<>();
        for (int number = 0; number < CALLS; number++) {
            Future<byte[]> call = calls.get(number);
            String sent = Integer.toString(number);
            String outcome = attempt(() -> text(call.get()).equals("\"" + sent + "\"") ? "\"OK\"" : "\"WRONG\"");
            counts.merge((number % EVERY == 0) + " " + outcome, 1, Integer::sum);
        }
        List<String> shown = new ArrayList<>();
        counts.forEach((outcome, count) -> shown.add(Names.json(outcome) + ": " + count));
        return "{" + String.join(", ", shown) + "}";
    }

    private String deadline() {
        return attempt(() -> text(unary(Names.ORDERS, "Wait", bytes(""), 500))).replaceAll(", .*", "]");
    }

    /** A stream that is cancelled in the middle, and a call behind it. */
    private String cancel() throws Exception {
        Gathering answers = new Gathering();
        var call = channel.newCall(Names.method(Names.ORDERS, "Chat"), within(20_000));
        StreamObserver<byte[]> requests = ClientCalls.asyncBidiStreamingCall(call, answers);
        requests.onNext(bytes("x"));
        answers.first.get();
        call.cancel("enough", null);
        String how = attempt(() -> list(answers.all())).replaceAll(", .*", "]");
        return "[" + how + ", " + text(unary(Names.ORDERS, "Get", bytes("after"), 20_000)) + "]";
    }

    /** 4 MiB there and back, alone and as a stream of four. */
    private String big() throws Exception {
        byte[] data = new byte[4 << 20];
        new Random(1).nextBytes(data);
        boolean unary = Arrays.equals(unary(Names.ORDERS, "Get", data, 20_000), data);
        List<byte[]> answers = chat(Names.ORDERS, "Chat", data, data, data, data);
        boolean stream = answers.size() == 4 && answers.stream().allMatch(answer -> Arrays.equals(answer, data));
        return "[" + unary + ", " + stream + "]";
    }

    private static String attempt(Callable<String> call) {
        try {
            return call.call();
        } catch (StatusRuntimeException failed) {
            return failure(failed.getStatus());
        } catch (ExecutionException failed) {
            return failure(Status.fromThrowable(failed.getCause()));
        } catch (Exception failed) {
            throw new IllegalStateException(failed);
        }
    }

    private static String failure(Status status) {
        return "[" + Names.json(status.getCode().name()) + ", " + Names.json(status.getDescription()) + "]";
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] data) {
        return Names.json(new String(data, StandardCharsets.UTF_8));
    }

    private static String list(List<byte[]> answers) {
        return answers.stream().map(Client::text).toList().toString();
    }

    /** Gathers all answers of a call. */
    private static final class Gathering implements StreamObserver<byte[]> {
        final CompletableFuture<List<byte[]>> ended = new CompletableFuture<>();
        final CompletableFuture<byte[]> first = new CompletableFuture<>();
        private final List<byte[]> answers = new ArrayList<>();

        @Override
        public void onNext(byte[] answer) {
            answers.add(answer);
            first.complete(answer);
        }

        @Override
        public void onError(Throwable error) {
            first.completeExceptionally(error);
            ended.completeExceptionally(error);
        }

        @Override
        public void onCompleted() {
            ended.complete(answers);
        }

        List<byte[]> all() throws Exception {
            return ended.get(30, TimeUnit.SECONDS);
        }
    }
}
