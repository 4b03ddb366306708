import java.nio.file.*;
import java.util.*;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Stream;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.*;
import org.elasticsearch.plugins.PluginsLoader;

/** One Elasticsearch node for tests: Main HTTP_PORT DIR MODS [SETTING=VALUE...]. Stops on SIGTERM. */
public class Main {
    public static void main(String[] a) throws Exception {
        Path home = Path.of(a[1]).toAbsolutePath(), modules = home.resolve("modules");
        for (String d : List.of("config", "logs", "plugins", "modules")) Files.createDirectories(home.resolve(d));
        try (DirectoryStream<Path> jars = Files.newDirectoryStream(Path.of(a[2]), "*.jar")) {
            for (Path jar : jars) module(jar.toAbsolutePath(), modules);
        }
        LogConfigurator.configureESLogging();
        Settings.Builder s = Settings.builder()
            .put("path.home", home).put("cluster.name", "es-test").put("node.name", "n1")
            .put("network.host", "127.0.0.1").put("http.port", a[0]).put("transport.port", 0)
            .put("discovery.type", "single-node")
            .put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (String kv : Arrays.asList(a).subList(3, a.length)) s.put(kv.substring(0, kv.indexOf('=')), kv.substring(kv.indexOf('=') + 1));
        Environment env = InternalSettingsPreparer.prepareEnvironment(s.build(), Map.of(), home.resolve("config"), () -> "n1");
        LogConfigurator.configureWithoutConfig(env.settings());
        Node node = new Node(env, PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(env.modulesDir(), false), Set.of(), Map.of(), false));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { try { node.close(); } catch (Exception e) { e.printStackTrace(); } }));
        node.start();
        System.out.println("READY http://127.0.0.1:" + a[0]);
        new CountDownLatch(1).await();
    }

    /** modules/NAME: the jar, and the descriptor the jar carries, less its modulename line (so a plain class loader above our class path). */
    static void module(Path jar, Path modules) throws Exception {
        try (FileSystem fs = FileSystems.newFileSystem(jar); Stream<Path> l = Files.list(fs.getPath("/META-INF/es-plugins"))) {
            Path src = l.findFirst().get(), dst = Files.createDirectories(modules.resolve(src.getFileName().toString().replace("/", "")));
            Files.copy(jar, dst.resolve("module.jar"), StandardCopyOption.REPLACE_EXISTING);
            Files.write(dst.resolve("plugin-descriptor.properties"), Files.readAllLines(src.resolve("plugin-descriptor.properties"))
                .stream().filter(x -> !x.startsWith("modulename")).toList());
        }
    }
}
