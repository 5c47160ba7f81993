import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;

/** The JDK's HttpClient, which asks for HTTP/2 with `Upgrade: h2c`: java Upgrading URL. Prints JSON. */
final class Upgrading {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();
    /** lighttpd takes eight streams at once, and this client fails where a server's limit is reached. */
    private static final int AT_ONCE = 6;

    private Upgrading() {}

    public static void main(String[] words) throws Exception {
        String base = words[0];
        List<String> first = new ArrayList<>();
        for (String path : List.of("/secret/first", "/public/first", "/secret/second", "/public/second")) {
            first.add(shown(CLIENT.send(get(base + path), HttpResponse.BodyHandlers.ofString())));
        }
        Map<String, Integer> counts = new TreeMap<>();
        for (int wave = 0; wave < 300; wave += AT_ONCE) {
            List<CompletableFuture<HttpResponse<String>>> calls = new ArrayList<>();
            for (int number = wave; number < wave + AT_ONCE; number++) {
                String url = base + (number % 3 == 0 ? "/secret/" : "/public/") + number;
                HttpRequest request = number % 2 == 0 ? get(url) : post(url);
                calls.add(CLIENT.sendAsync(request, HttpResponse.BodyHandlers.ofString()));
            }
            for (int number = wave; number < wave + AT_ONCE; number++) {
                String place = number % 3 == 0 ? "secret " : "public ";
                counts.merge("\"" + place + shown(calls.get(number - wave).get()) + "\"", 1, Integer::sum);
            }
        }
        List<String> all = counts.entrySet().stream().map(entry -> entry.getKey() + ": " + entry.getValue()).toList();
        System.out.println("{\"first\": [\"" + String.join("\", \"", first) + "\"], \"then\": {"
                + String.join(", ", all) + "}}");
        System.exit(0);
    }

    private static String shown(HttpResponse<String> answer) {
        String denied = answer.body().equals("Access denied\r\n") ? " denied" : "";
        return answer.version() + " " + answer.statusCode() + denied;
    }

    private static HttpRequest get(String url) {
        return HttpRequest.newBuilder(URI.create(url)).build();
    }

    private static HttpRequest post(String url) {
        HttpRequest.BodyPublisher body = HttpRequest.BodyPublishers.ofByteArray(new byte[20_000]);
        return HttpRequest.newBuilder(URI.create(url)).POST(body).build();
    }
}
