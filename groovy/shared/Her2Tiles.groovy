/*
 * Objects of her2bridge's: which are ours, what tiles say, and how they go into GeoJSON files and come out of them.
 *
 * QuPath's core classes only (no GUI), 0.5.1 to 0.7.
 */

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import com.google.gson.JsonParser
import com.google.gson.stream.JsonReader
import qupath.lib.common.ColorTools
import qupath.lib.io.GsonTools
import qupath.lib.objects.PathObject
import qupath.lib.objects.PathObjects
import qupath.lib.objects.classes.PathClass
import qupath.lib.regions.ImagePlane
import qupath.lib.roi.ROIs
import qupath.lib.roi.interfaces.ROI

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.util.zip.GZIPInputStream
import java.util.zip.GZIPOutputStream

class Her2Tiles {

    /** QuPath prints derived classes so: Tumor: Positive. */
    static final String BETWEEN_NAMES = ': '

    private final Map names

    /** names: shared/names.json, parsed. */
    Her2Tiles(Map names) {
        this.names = names
    }

    boolean isOurs(PathObject object) {
        object.isTile() && object.metadata.containsKey(names.ownership_key)
    }

    /** Whether this marks a label that a model doubts; one that a person gave another class is theirs. */
    boolean isSuspect(PathObject object) {
        object.isAnnotation() && object.metadata.containsKey(names.ownership_key) &&
            object.pathClass?.toString() == names.suspect_class
    }

    /** Probabilities of a tile's six classes, in the network's order; NaN where it has none. */
    double[] probabilities(PathObject tile) {
        names.classes.collect { tile.measurementList.get(it.probability) } as double[]
    }

    /** Whether a person changed the tile's class: it is not the one that its own probabilities say. */
    boolean isCorrected(PathObject tile) {
        double[] p = probabilities(tile)
        if (p.any { Double.isNaN(it) }) {
            return false
        }
        int likeliest = p.toList().indexOf(p.max())
        tile.pathClass?.name != names.classes[likeliest].name
    }

    /** Those of the engine's classes that the user's list lacks; the list itself keeps its order and colours. */
    static List<PathClass> missingClasses(List<Map> wanted, Collection<PathClass> have) {
        def known = have*.toString() as Set
        wanted.findAll { !(it.name in known) }.collect { PathClass.fromString(it.name, packed(it.color)) }
    }

    /**
     * The tiles of a GeoJSON file of her2bridge's, plain or .gz, as a list of [tile, parent: id or null]. They carry
     * their mark and are in no image yet.
     */
    List<Map> read(File file) {
        def found = []
        try {
            eachFeature(file) { JsonObject feature ->
                if (string(feature, 'run') != null) {
                    found << [tile: tileOf(feature), parent: string(feature, 'parent')]
                }
            }
        } catch (IOException | JsonParseException | IllegalStateException | IllegalArgumentException damaged) {
            throw new Her2Failure("The file's tiles cannot be read: ${damaged.message}", file.toString(),
                'Copy or make the file again.', damaged)
        }
        found
    }

    private PathObject tileOf(JsonObject feature) {
        JsonObject properties = feature.getAsJsonObject('properties')
        def ring = feature.getAsJsonObject('geometry').getAsJsonArray('coordinates').get(0)
        def (xs, ys) = [ring*.get(0)*.asDouble, ring*.get(1)*.asDouble]
        def (x, y) = [xs.min(), ys.min()]
        ROI roi = ROIs.createRectangleROI(x, y, xs.max() - x, ys.max() - y, ImagePlane.defaultPlane)
        def tile = PathObjects.createTileObject(roi, classOf(properties.get('classification')), null)
        properties.getAsJsonObject('measurements')?.entrySet()?.each {
            tile.measurementList.put(it.key, it.value.asDouble)
        }
        tile.measurementList.close()
        tile.ID = UUID.fromString(string(feature, 'id'))
        mark(tile, string(feature, 'run'))
        tile
    }

    /** The mark is object metadata: read-only to us in QuPath 0.5, which keeps it all the same. */
    private void mark(PathObject tile, String run) {
        try {
            tile.metadata.put(names.ownership_key, run)
        } catch (UnsupportedOperationException readOnly) {
            tile.storeMetadataValue(names.ownership_key, run)
        }
    }

    /** Walks through the Features of a FeatureCollection without having all of them in memory. */
    private static void eachFeature(File file, Closure take) {
        file.withInputStream { raw ->
            def stream = new BufferedInputStream(raw)
            stream.mark(2)
            boolean packed = stream.read() == 0x1f && stream.read() == 0x8b
            stream.reset()
            def plain = packed ? new GZIPInputStream(stream) : stream
            def reader = new JsonReader(new InputStreamReader(plain, StandardCharsets.UTF_8))
            reader.beginObject()
            while (reader.hasNext()) {
                if (reader.nextName() != 'features') {
                    reader.skipValue()
                    continue
                }
                reader.beginArray()
                while (reader.hasNext()) {
                    take(JsonParser.parseReader(reader).asJsonObject)
                }
                reader.endArray()
            }
        }
    }

    private static PathClass classOf(JsonElement value) {
        if (value == null || !value.isJsonObject()) {
            return null
        }
        JsonObject one = value.asJsonObject
        def levels = one.has('names') ? one.getAsJsonArray('names')*.asString : [one.get('name').asString]
        def colour = one.get('color')
        PathClass.fromString(levels.join(BETWEEN_NAMES), colour?.isJsonArray() ? packed(colour*.asInt) : null)
    }

    private static String string(JsonObject object, String key) {
        def value = object.get(key)
        value == null || value.isJsonNull() ? null : value.asString
    }

    private static Integer packed(List<Number> rgb) {
        rgb == null ? null : ColorTools.packRGB(rgb[0] as int, rgb[1] as int, rgb[2] as int)
    }

    static List<Integer> rgb(PathClass one) {
        Integer colour = one.color
        colour == null ? null : [ColorTools.red(colour), ColorTools.green(colour), ColorTools.blue(colour)]
    }

    /**
     * Write objects as a FeatureCollection, packed where the name ends in .gz; our tiles keep parent and mark. The file
     * is whole, or as it was.
     */
    void write(File file, Collection<PathObject> objects) {
        def part = new File("${file}.part")
        def raw = new FileOutputStream(part)
        def stream = file.name.toLowerCase().endsWith('.gz') ? new GZIPOutputStream(raw) : raw
        new OutputStreamWriter(stream, StandardCharsets.UTF_8).withCloseable { out ->
            out << '{"type":"FeatureCollection","features":[\n'
            objects.eachWithIndex { object, place ->
                out << (place ? ',\n' : '') << featureOf(object)
            }
            out << '\n]}\n'
        }
        Files.move(part.toPath(), file.toPath(), StandardCopyOption.REPLACE_EXISTING)
    }

    private JsonObject featureOf(PathObject object) {
        JsonObject feature = JsonParser.parseString(GsonTools.instance.toJson(object, PathObject)).asJsonObject
        if (isOurs(object)) {
            feature.addProperty('parent', object.parent.isAnnotation() ? object.parent.ID.toString() : null)
            feature.addProperty('run', object.metadata[names.ownership_key])
            feature.addProperty('side', object.ROI.boundsWidth)
            feature.getAsJsonObject('properties').remove('metadata')  // 0.5 refuses it
        }
        feature
    }

}
